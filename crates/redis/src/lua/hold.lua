-- Holds a limiter. KEYS: the limiter. ARGV: until, in microseconds. A shorter hold does not end a longer one.
local held = tonumber(redis.call('HGET', KEYS[1], 'h') or '0')
local till = tonumber(ARGV[1])
if till > held then redis.call('HSET', KEYS[1], 'h', ARGV[1]) end
local time = redis.call('TIME')
local rest = math.ceil(math.max(till, held) / 1000) - tonumber(time[1]) * 1000 + 60000
if rest < 60000 then rest = 60000 end
if redis.call('PTTL', KEYS[1]) < rest then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', rest)) end
return ''
