-- The digests of remembered ids. KEYS: c b. ARGV: ids. Answers {applied or '', digest or '', …}.
local answers = {redis.call('HGET', KEYS[1], 'off') or ''}
-- The longest remembered first: an id that was marked again stands in its last bucket.
local buckets = redis.call('ZREVRANGE', KEYS[2], 0, -1)
for n = 1, #ARGV do
  local found = false
  for _, bucket in ipairs(buckets) do
    found = redis.call('HGET', bucket, ARGV[n])
    if found then break end
  end
  answers[n + 1] = found or ''
end
return answers
