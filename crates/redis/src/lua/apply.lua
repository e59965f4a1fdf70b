-- Applies changes and moves the view, in one step. KEYS: c v z i d b. ARGV: epoch, expected or '', next, then the changes:
--   P key value | D key | M id digest day bucket | S key at | U key
-- Answers {'ok'}, {'fenced'} or {'conflict', applied or ''}; nothing changed unless it is ok.
local c, v, z, i, d, b = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local stands = redis.call('HMGET', c, 'ep', 'off')
if stands[1] and tonumber(ARGV[1]) < tonumber(stands[1]) then return {'fenced'} end
local applied = stands[2] or ''
if applied ~= ARGV[2] then return {'conflict', applied} end

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
    redis.call('ZREM', z, ARGV[at + 1])
    if redis.call('ZREM', i, ARGV[at + 1]) == 1 then redis.call('HDEL', d, ARGV[at + 1]) end
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
end
if next(days) then
  local today = math.floor(tonumber(redis.call('TIME')[1]) / 86400)
  redis.call('ZREMRANGEBYSCORE', b, '-inf', '(' .. today)
end

redis.call('HSET', c, 'ep', ARGV[1], 'off', ARGV[3])
return {'ok'}
