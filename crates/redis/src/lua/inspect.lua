-- Looks through some buckets of timers. ARGV: the first one, about how many timers. Answers {'damaged'} or
-- {next bucket or 0, member, score, …}.
local n, most, answers = tonumber(ARGV[1]), tonumber(ARGV[2]), {'0'}
local till = n + 512
while n < BUCKETS do
  if #answers > 2 * most or n == till then
    answers[1] = string.format('%.0f', n)
    break
  end
  local bucket = string.format('%.0f', n)
  if not whole(bucket) then return {'damaged'} end
  if count[bucket] > 0 then
    local timers = redis.call('ZRANGE', z .. ':' .. bucket, 0, -1, 'WITHSCORES')
    -- None may be due before the time at which the bucket is looked into.
    if math.floor(tonumber(timers[2]) / PARTS) < first[bucket] then return {'damaged'} end
    for m = 1, #timers do answers[#answers + 1] = timers[m] end
  end
  n = n + 1
end
return answers
