-- Leases due timers. KEYS: c z i d. ARGV: epoch, now, end of the lease, limit. Answers {'fenced'} or {'ok', key, at, key, at, …}.
-- z: waiting timers by due time; i: leased ones by the end of their lease; d: the due time of the leased ones.
local c, z, i, d = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local epoch = redis.call('HGET', c, 'ep')
if epoch and tonumber(ARGV[1]) < tonumber(epoch) then return {'fenced'} end
local limit = tonumber(ARGV[4])

-- Leases that are over wait again, with the time at which they were due. As many as could be claimed now: the others follow.
for _, key in ipairs(redis.call('ZRANGEBYSCORE', i, '-inf', ARGV[2], 'LIMIT', 0, limit)) do
  redis.call('ZADD', z, redis.call('HGET', d, key), key)
  redis.call('ZREM', i, key)
  redis.call('HDEL', d, key)
end

local due = redis.call('ZRANGEBYSCORE', z, '-inf', ARGV[2], 'WITHSCORES', 'LIMIT', 0, limit)
local answers = {'ok'}
for n = 1, #due, 2 do
  redis.call('ZREM', z, due[n])
  redis.call('ZADD', i, ARGV[3], due[n])
  redis.call('HSET', d, due[n], due[n + 1])
  answers[n + 1] = due[n]
  answers[n + 2] = due[n + 1]
end
return answers
