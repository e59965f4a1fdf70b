-- Takes one from a limiter, a generic cell rate algorithm in microseconds. KEYS: the limiter. ARGV: now, interval, burst.
-- Fields: t, the theoretical arrival time of the next; h, the end of a hold. Answers '' when taken, else when to come again.
local now, interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local state = redis.call('HMGET', KEYS[1], 't', 'h')
local after = math.max(tonumber(state[1] or '0'), now) + interval
local from = math.max(after - burst * interval, tonumber(state[2] or '0'))
if now < from then return string.format('%.0f', from) end
redis.call('HSET', KEYS[1], 't', string.format('%.0f', after))
-- Once the burst is whole again there is nothing left to know, unless it is held. A minute more for clocks that differ.
local rest = math.ceil((after - now) / 1000) + 60000
if redis.call('PTTL', KEYS[1]) < rest then redis.call('PEXPIRE', KEYS[1], rest) end
return ''
