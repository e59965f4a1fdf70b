-- Applies changes and moves the view, in one step. ARGV: epoch, expected or '', next, then the changes:
--   P key value | D key | M id digest day bucket | S key at | U key
-- Answers {'ok'}, {'fenced'} or {'conflict', applied or ''}; nothing changed unless it is ok.
local owner = redis.call('HGET', c, 'ep')
if owner and tonumber(ARGV[1]) < tonumber(owner) then return {'fenced'} end
local applied = position(true)
if applied ~= ARGV[2] then return {'conflict', applied} end
if applied == '' then forget() end

local days = {}
local at, n = 4, #ARGV
while at <= n do
  local op = ARGV[at]
  if op == 'P' then
    redis.call('HSET', v, ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  elseif op == 'D' then
    redis.call('HDEL', v, ARGV[at + 1])
    at = at + 2
  elseif op == 'M' then
    local day, bucket = ARGV[at + 3], ARGV[at + 4]
    redis.call('HSET', bucket, ARGV[at + 1], ARGV[at + 2])
    days[day] = bucket
    at = at + 5
  elseif op == 'S' then
    redis.call('ZADD', z, ARGV[at + 2], ARGV[at + 1])
    if redis.call('ZREM', i, ARGV[at + 1]) == 1 then redis.call('HDEL', d, ARGV[at + 1]) end
    at = at + 3
  elseif op == 'U' then
    if redis.call('ZREM', z, ARGV[at + 1]) == 0 and redis.call('ZREM', i, ARGV[at + 1]) == 1 then
      redis.call('HDEL', d, ARGV[at + 1])
    end
    at = at + 2
  else
    -- Cannot happen: the adapter writes these words. Before it does, nothing but earlier changes of this call has happened.
    return redis.error_reply('unknown change')
  end
end

-- Marks live in one hash per day at whose end they may go; b lists the days.
for day, bucket in pairs(days) do
  redis.call('EXPIREAT', bucket, string.format('%.0f', (tonumber(day) + 1) * 86400))
  redis.call('ZADD', b, day, bucket)
  redis.call('HSET', c, 'm' .. day, redis.call('HLEN', bucket))
end
if next(days) then
  for _, bucket in ipairs(redis.call('ZRANGEBYSCORE', b, '-inf', '(' .. today())) do
    redis.call('HDEL', c, 'm' .. redis.call('ZSCORE', b, bucket))
    redis.call('ZREM', b, bucket)
  end
end

redis.call('HSET', c, 'ep', ARGV[1], 'off', ARGV[3], 'nv', redis.call('HLEN', v),
  'nt', redis.call('ZCARD', z) + redis.call('ZCARD', i), 'nb', redis.call('ZCARD', b))
return {'ok'}
