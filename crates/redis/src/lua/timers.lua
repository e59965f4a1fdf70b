-- Timers. ARGV: keys. Answers {applied or '', due time or nil, …}.
local answers = {position(false)}
for from = 1, #ARGV, 1000 do
  local till = math.min(from + 999, #ARGV)
  local scores = redis.call('ZMSCORE', z, unpack(ARGV, from, till))
  for n = from, till do answers[n + 1] = scores[n - from + 1] or redis.call('HGET', d, ARGV[n]) end
end
return answers
