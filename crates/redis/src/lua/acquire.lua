-- Takes a view over. KEYS: c. Answers {epoch, applied or ''}.
-- The epoch is the server's time in microseconds, or one more than the last: greater than every earlier one, also when the
-- view was lost in between. It stays below 2^53, up to which Lua's numbers are exact.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = tonumber(redis.call('HGET', KEYS[1], 'ep') or '0')
local epoch = string.format('%.0f', math.max(now, last + 1))
redis.call('HSET', KEYS[1], 'ep', epoch)
return {epoch, redis.call('HGET', KEYS[1], 'off') or ''}
