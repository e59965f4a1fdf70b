-- Applies changes and moves the view, in one step. ARGV: epoch, expected or '', next, how many buckets of timers change, for each of them
--   bucket, earliest due time or '', how many are set, how many go, score member …, member …
-- then the other changes:
--   P key value | D key | M id digest day bucket | L log
-- Answers {'ok'}, {'fenced'} or {'conflict', applied or ''}; nothing changed unless it is ok.
local owner = redis.call('HGET', c, 'ep')
if owner and tonumber(ARGV[1]) < (tonumber(owner) or 0) then return {'fenced'} end
local applied = position(true)
if applied ~= ARGV[2] then return {'conflict', applied} end
if applied == '' then forget() end

local at, n = 5, #ARGV
local leased = redis.call('ZCARD', i)
local buckets, members = {}, {}
for m = 1, tonumber(ARGV[4]) do
  local set, go = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  buckets[m] = {ARGV[at], ARGV[at + 1], set, go, at + 4}
  if leased > 0 then
    for k = at + 5, at + 3 + 2 * set, 2 do members[#members + 1] = ARGV[k] end
    for k = at + 4 + 2 * set, at + 3 + 2 * set + go do members[#members + 1] = ARGV[k] end
  end
  at = at + 4 + 2 * set + go
end

-- Those that are leased lie in no bucket. All of this in pieces: Lua unpacks a few thousand at once, not more.
local held = {}
for from = 1, #members, 1000 do
  local till = math.min(from + 999, #members)
  local found, leases = redis.call('HMGET', d, unpack(members, from, till)), {}
  for m = from, till do
    if found[m - from + 1] then
      held[members[m]] = true
      leases[#leases + 1] = members[m]
    end
  end
  if #leases > 0 then
    redis.call('HDEL', d, unpack(leases))
    leased = leased - redis.call('ZREM', i, unpack(leases))
  end
end

for from = 1, #buckets, 1000 do
  local till, names = math.min(from + 999, #buckets), {}
  for m = from, till do names[#names + 1] = buckets[m][1] end
  local scores = redis.call('ZMSCORE', z, unpack(names))
  for m = from, till do learn(buckets[m][1], scores[m - from + 1]) end
end
for m = 1, #buckets do
  local bucket, earliest, set, go, begin = unpack(buckets[m])
  for from = begin, begin + 2 * set - 1, 1000 do
    put(bucket, tonumber(earliest), unpack(ARGV, from, math.min(from + 999, begin + 2 * set - 1)))
  end
  local gone = {}
  for k = begin + 2 * set, begin + 2 * set + go - 1 do
    if not held[ARGV[k]] then gone[#gone + 1] = ARGV[k] end
  end
  for from = 1, #gone, 1000 do drop(bucket, unpack(gone, from, math.min(from + 999, #gone))) end
end
save()

-- Values and marks that follow one another go into their hash together.
local days, hash, fields = {}, false, {}
local function set(into, field, value)
  if hash and (into ~= hash or #fields >= 1000) then
    redis.call('HSET', hash, unpack(fields))
    fields = {}
  end
  hash = into
  if into then fields[#fields + 1], fields[#fields + 2] = field, value end
end
while at <= n do
  local op = ARGV[at]
  if op == 'P' then
    set(v, ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  elseif op == 'D' then
    set(false)
    redis.call('HDEL', v, ARGV[at + 1])
    at = at + 2
  elseif op == 'M' then
    local day, bucket = ARGV[at + 3], ARGV[at + 4]
    set(bucket, ARGV[at + 1], ARGV[at + 2])
    days[day] = bucket
    at = at + 5
  elseif op == 'L' then
    set(c, 'log', ARGV[at + 1])
    at = at + 2
  else
    -- Cannot happen: the adapter writes these words. Before it does, nothing but earlier changes of this call has happened.
    return redis.error_reply('unknown change')
  end
end
set(false)

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
  'nz', redis.call('ZCARD', z), 'ni', leased, 'nb', redis.call('ZCARD', b))
return {'ok'}
