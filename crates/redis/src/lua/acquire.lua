-- Takes a view over. Answers {epoch, applied or ''}.
-- The epoch is the server's time in microseconds, or one more than the last: greater than every earlier one, also when the
-- view was lost in between. It stays below 2^53, up to which Lua's numbers are exact.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = tonumber(redis.call('HGET', c, 'ep') or '0')
local epoch = string.format('%.0f', math.max(now, last + 1))
local applied = position(true)
if applied == '' then forget() end
-- Whoever claimed them cannot act on them any more.
local leased = redis.call('HGETALL', d)
for n = 1, #leased, 2 do redis.call('ZADD', z, leased[n + 1], leased[n]) end
redis.call('UNLINK', i, d)
redis.call('HSET', c, 'ep', epoch)
return {epoch, applied}
