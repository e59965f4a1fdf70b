-- The digests of remembered ids. ARGV: ids. Answers {applied or '', log or '', digest or '', …}.
local answers = {position(true)}
for n = 1, #ARGV do answers[n + 2] = '' end
-- The longest remembered first: an id that was marked again stands in its last bucket.
for _, bucket in ipairs(redis.call('ZREVRANGE', b, 0, -1)) do
  -- In pieces: Lua unpacks a few thousand at once, not more.
  for from = 1, #ARGV, 1000 do
    local till = math.min(from + 999, #ARGV)
    local found = redis.call('HMGET', bucket, unpack(ARGV, from, till))
    for n = from, till do
      if answers[n + 2] == '' then answers[n + 2] = found[n - from + 1] or '' end
    end
  end
end
return answers
