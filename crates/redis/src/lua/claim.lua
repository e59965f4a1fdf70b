-- Leases due timers. ARGV: epoch, now, end of the lease, limit, since. Answers {'fenced'} or {'ok', key, at, key, at, …}.
local owner = redis.call('HGET', c, 'ep')
if owner and tonumber(ARGV[1]) < tonumber(owner) then return {'fenced'} end
local limit = tonumber(ARGV[4])

-- Leases that are over wait again, with the time at which they were due. As many as could be claimed now: the others follow.
for _, key in ipairs(redis.call('ZRANGEBYSCORE', i, '-inf', ARGV[2], 'LIMIT', 0, limit)) do
  redis.call('ZADD', z, redis.call('HGET', d, key), key)
  redis.call('ZREM', i, key)
  redis.call('HDEL', d, key)
end

-- Behind the point of a due time stand its tag and check: all of this millisecond are below the next.
local till = '(' .. string.format('%.0f', tonumber(ARGV[2]) + 1)
local due = redis.call('ZRANGEBYSCORE', z, ARGV[5], till, 'WITHSCORES', 'LIMIT', 0, limit)
local answers = {'ok'}
for n = 1, #due, 2 do
  redis.call('ZREM', z, due[n])
  redis.call('ZADD', i, ARGV[3], due[n])
  redis.call('HSET', d, due[n], due[n + 1])
  answers[n + 1] = due[n]
  answers[n + 2] = due[n + 1]
end
return answers
