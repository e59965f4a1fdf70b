-- Leases the oldest due timers, in no order. ARGV: epoch, now, end of the lease, limit, since. Answers {'fenced'}, {'damaged'} or
-- {'ok', member, score, member, score, …}.
local owner = redis.call('HGET', c, 'ep')
if owner and tonumber(ARGV[1]) < (tonumber(owner) or 0) then return {'fenced'} end
local now, limit, since = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])

-- Leases that are over wait again, with the time at which they were due. As many as could be claimed now: the others follow.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', i, '-inf', ARGV[2], 'LIMIT', 0, limit)) do
  if not wait(member, redis.call('HGET', d, member)) then return {'damaged'} end
  redis.call('ZREM', i, member)
  redis.call('HDEL', d, member)
end
save()

local taken, leases, damaged = {}, {}, false

-- Takes timers of one bucket: member, score, member, score, …
local function lease(bucket, due)
  local members = {}
  for m = 1, #due, 2 do
    members[#members + 1] = due[m]
    taken[#taken + 1] = due[m]
    taken[#taken + 1] = due[m + 1]
    leases[#leases + 1] = due[m + 1] .. ' ' .. bucket
  end
  for from = 1, #members, 1000 do drop(bucket, unpack(members, from, math.min(from + 999, #members))) end
end

-- The first `most` of what was found in several buckets.
local function lease_first(found, most)
  local all = {}
  for bucket, due in pairs(found) do
    for m = 1, #due, 2 do all[#all + 1] = {tonumber(due[m + 1]), due[m], due[m + 1], bucket} end
  end
  table.sort(all, function(one, other)
    if one[1] ~= other[1] then return one[1] < other[1] end
    return one[2] < other[2]
  end)
  for n = 1, #all do
    local score, member, text, bucket = unpack(all[n])
    if n <= most then
      near(bucket)
      lease(bucket, {member, text})
    elseif since == 0 then
      -- It comes first in its bucket now, or something that was left over before does.
      first[bucket] = math.min(first[bucket], math.floor(score / PARTS))
    end
  end
end

-- What is due in a bucket up to the horizon, and the score of what comes behind it. Mostly it is one timer: two are read, all only when both
-- are due.
local function due_in(bucket, horizon)
  local name = z .. ':' .. bucket
  local two = redis.call('ZRANGE', name, 0, 1, 'WITHSCORES')
  local one, other = tonumber(two[2]), tonumber(two[4])
  if not one then return {} end
  if one >= horizon then return {}, one end
  if not other or other >= horizon then return {two[1], two[2]}, other end
  local till = string.format('%.0f', horizon)
  local behind = redis.call('ZRANGEBYSCORE', name, till, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return redis.call('ZRANGEBYSCORE', name, '-inf', '(' .. till, 'WITHSCORES'), tonumber(behind[2])
end

-- Takes what is due up to `till` in these buckets, which are all in which something is; at most so many.
local function take(buckets, till, most)
  local found, total, horizon = {}, 0, (till + 1) * PARTS
  for _, bucket in ipairs(buckets) do
    local due, behind = due_in(bucket, horizon)
    -- Where nothing is found it was looked for too early, or it is missing.
    if #due == 0 and not whole(bucket) then
      damaged = true
      return
    end
    if behind then first[bucket], moved[bucket] = math.floor(behind / PARTS), true end
    found[bucket] = due
    total = total + #due / 2
  end
  if total > most then
    lease_first(found, most)
  else
    for bucket, due in pairs(found) do lease(bucket, due) end
  end
  save()
end

local till = '(' .. string.format('%.0f', (now + 1) * PARTS)
if since > 0 then
  -- Where something may be due at all. Most of them hold older timers, too.
  local found, from = {}, string.format('%.0f', since * PARTS)
  for _, bucket in ipairs(redis.call('ZRANGEBYSCORE', z, '-inf', till)) do
    local due = redis.call('ZRANGEBYSCORE', z .. ':' .. bucket, from, till, 'WITHSCORES')
    if #due > 0 then found[bucket] = due end
  end
  lease_first(found, limit)
  save()
else
  repeat
    local left = limit - #leases
    -- So many buckets hold about as many timers as are wanted, so that there is nothing to be put in order here.
    local wanted = left > 64 and math.ceil(left * 0.6) or left
    local heads = redis.call('ZRANGEBYSCORE', z, '-inf', till, 'WITHSCORES', 'LIMIT', 0, wanted + 1)
    -- One bucket more than is looked into: whatever is older than the first timer of that one lies in the others.
    local buckets, horizon = {}, now
    for n = 1, #heads, 2 do
      learn(heads[n], heads[n + 1])
      if n < 2 * wanted then buckets[#buckets + 1] = heads[n] else horizon = first[heads[n]] end
    end
    take(buckets, horizon, left)
  until #buckets == 0 or damaged or #leases >= limit
end
if damaged then return {'damaged'} end

local answers = {'ok'}
for n = 1, #taken do answers[n + 1] = taken[n] end
-- In pieces: Lua unpacks a few thousand at once, not more.
for from = 1, #leases, 1000 do
  local ends, of = {}, {}
  for n = from, math.min(from + 999, #leases) do
    ends[#ends + 1], ends[#ends + 2] = ARGV[3], taken[2 * n - 1]
    of[#of + 1], of[#of + 2] = taken[2 * n - 1], leases[n]
  end
  redis.call('ZADD', i, unpack(ends))
  redis.call('HSET', d, unpack(of))
end
redis.call('HSET', c, 'nz', redis.call('ZCARD', z), 'ni', redis.call('ZCARD', i))
return answers
