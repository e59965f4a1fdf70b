-- Timers. ARGV: how many, their members, their buckets. Answers {applied or '', log or '', score or nil, …}.
local answers = {position(false)}
local most = tonumber(ARGV[1])
local leases = {}
if redis.call('ZCARD', i) > 0 then
  -- In pieces: Lua unpacks a few thousand at once, not more.
  for from = 1, most, 1000 do
    local till = math.min(from + 999, most)
    local found = redis.call('HMGET', d, unpack(ARGV, from + 1, till + 1))
    for n = from, till do leases[n] = found[n - from + 1] end
  end
end
local sound = {}
for n = 1, most do
  local bucket = ARGV[1 + most + n]
  local score = leases[n] and string.match(leases[n], '^(%S+)') or redis.call('ZSCORE', z .. ':' .. bucket, ARGV[n + 1])
  -- That there is none has to be true: its bucket may be what was lost.
  if not score and sound[bucket] == nil then
    sound[bucket] = whole(bucket)
    if not sound[bucket] then
      redis.call('HDEL', c, 'off')
      answers[1] = ''
    end
  end
  answers[n + 2] = score
end
return answers
