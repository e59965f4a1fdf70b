-- Gives one back to a limiter (see take). KEYS: the limiter. ARGV: interval in microseconds.
local t, h = string.match(redis.call('MGET', KEYS[1])[1] or '', '^(%-?%d+) (%-?%d+)$')
if t then redis.call('SET', KEYS[1], string.format('%.0f %s', tonumber(t) - tonumber(ARGV[1]), h), 'KEEPTTL') end
return ''
