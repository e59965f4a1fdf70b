-- Gives one back to a limiter. KEYS: the limiter. ARGV: interval in microseconds.
local arrival = redis.call('HGET', KEYS[1], 't')
if arrival then
  redis.call('HSET', KEYS[1], 't', string.format('%.0f', tonumber(arrival) - tonumber(ARGV[1])))
end
return ''
