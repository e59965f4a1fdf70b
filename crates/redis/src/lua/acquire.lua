-- Takes a view over. ARGV: keys of the layout before this one. Answers {epoch, applied or '', log or ''}.
-- The epoch is the server's time in microseconds, or one more than the last: greater than every earlier one, also when the
-- view was lost in between. It stays below 2^53, up to which Lua's numbers are exact.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = tonumber(redis.call('HGET', c, 'ep') or '0') or 0
local epoch = string.format('%.0f', math.max(now, last + 1))
local applied, log = position(true)
if applied == '' then
  forget()
  -- Nobody brings the former layout up to date any more, and who asks it takes it for a view that is being built.
  redis.call('UNLINK', unpack(ARGV))
end
-- Whoever claimed them cannot act on them any more.
local leased = redis.call('HGETALL', d)
for n = 1, #leased, 2 do
  if not wait(leased[n], leased[n + 1]) then
    redis.call('HDEL', c, 'off')
    applied = ''
    break
  end
end
save()
redis.call('UNLINK', i, d)
redis.call('HSET', c, 'ep', epoch, 'nz', redis.call('ZCARD', z), 'ni', 0)
return {epoch, applied, log}
