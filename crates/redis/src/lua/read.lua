-- Values. ARGV: keys. Answers {applied or '', log or '', value or nil, …}.
local answers = {position(false)}
-- In pieces: Lua unpacks a few thousand at once, not more.
for from = 1, #ARGV, 1000 do
  local till = math.min(from + 999, #ARGV)
  local values = redis.call('HMGET', v, unpack(ARGV, from, till))
  for n = from, till do answers[n + 2] = values[n - from + 1] end
end
return answers
