-- Holds a limiter (see take). KEYS: the limiter. ARGV: until, in microseconds. A shorter hold does not end a longer one.
local t, h = string.match(redis.call('MGET', KEYS[1])[1] or '', '^(%-?%d+) (%-?%d+)$')
local till = math.max(tonumber(ARGV[1]), tonumber(h or '0'))
local time = redis.call('TIME')
local rest = math.ceil(math.max(till, tonumber(t or '0')) / 1000) - tonumber(time[1]) * 1000 + 60000
if rest < 60000 then rest = 60000 end
redis.call('SET', KEYS[1], string.format('%s %.0f', t or '0', till), 'PX', string.format('%.0f', rest))
return ''
