-- The digests of remembered ids. ARGV: ids. Answers {applied or '', digest or '', …}.
local answers = {position(true)}
-- The longest remembered first: an id that was marked again stands in its last bucket.
local buckets = redis.call('ZREVRANGE', b, 0, -1)
for n = 1, #ARGV do
  local found = false
  for _, bucket in ipairs(buckets) do
    found = redis.call('HGET', bucket, ARGV[n])
    if found then break end
  end
  answers[n + 1] = found or ''
end
return answers
