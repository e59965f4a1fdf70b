-- What the scripts of a view share. KEYS: c v z i d b.
-- c: position, owner, and how much the other parts hold; v: values; b: the buckets of marks by day.
-- Timers wait in buckets z:<n>, small enough for Redis to keep each in one piece of memory; z lists those that hold any, see "first" below.
-- i: leased timers by the end of their lease; d: of each, "score bucket".
local c, v, z, i, d, b = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- A timer's score is its due time in milliseconds times PARTS, plus tag and check.
local PARTS, BUCKETS = 2048, 2048

local function today()
  return math.floor(tonumber(redis.call('TIME')[1]) / 86400)
end

-- The position, or '' when there is none, and the log it is of ('' as long as nobody has said). A part that does not hold as much as was put into it was evicted or changed by hand:
-- the view loses its position then, and its owner builds it again.
local function position(marks)
  local stands = redis.call('HMGET', c, 'off', 'nv', 'nz', 'ni', 'nb', 'log')
  if not tonumber(stands[1] or '') then return '', '' end
  local leased = redis.call('ZCARD', i)
  local whole = redis.call('HLEN', v) == tonumber(stands[2] or -1)
    and redis.call('ZCARD', z) == tonumber(stands[3] or -1)
    and leased == tonumber(stands[4] or -1)
    and redis.call('HLEN', d) == leased
  if whole and marks then
    whole = redis.call('ZCARD', b) == tonumber(stands[5] or -1)
    local buckets, held = redis.call('ZRANGEBYSCORE', b, today(), '+inf', 'WITHSCORES'), {}
    for n = 2, #buckets, 2 do held[#held + 1] = 'm' .. buckets[n] end
    local counts = #held > 0 and redis.call('HMGET', c, unpack(held))
    for n = 1, #held do
      whole = whole and redis.call('HLEN', buckets[2 * n - 1]) == tonumber(counts[n] or -1)
    end
  end
  if whole then return stands[1], stands[6] or '' end
  redis.call('HDEL', c, 'off')
  return '', ''
end

-- Empties the view; its owner stays. Whatever the list of buckets says: it may be what was lost. Any part may be of another type by now.
local function forget()
  local named = redis.pcall('ZRANGE', b, 0, -1)
  if not named.err then
    for _, bucket in ipairs(named) do redis.call('UNLINK', bucket) end
  end
  local owner = redis.pcall('HGET', c, 'ep')
  if type(owner) ~= 'string' or not tonumber(owner) then owner = false end
  redis.call('UNLINK', c, v, z, i, d, b)
  for from = 0, BUCKETS - 1, 1024 do
    local names = {}
    for n = from, from + 1023 do names[#names + 1] = z .. ':' .. n end
    redis.call('UNLINK', unpack(names))
  end
  if owner then redis.call('HSET', c, 'ep', owner) end
end

-- The buckets that this script has come near. first: no timer of the bucket is due before; count: how many it holds. Both stand in z in
-- one number. The first may be too early, never too late: what is looked for is found, and a look for nothing puts it right.
local first, count, known, moved = {}, {}, {}, {}
-- Counts above this are not told apart.
local MANY = PARTS - 1

local function learn(n, score)
  known[n] = true
  score = tonumber(score or '')
  count[n] = score and score % PARTS or 0
  first[n] = score and (score - count[n]) / PARTS
end

local function near(n)
  if not known[n] then learn(n, redis.call('ZSCORE', z, n)) end
end

-- Whether a bucket holds what was put into it.
local function whole(n)
  near(n)
  return count[n] == math.min(redis.call('ZCARD', z .. ':' .. n), MANY)
end

local function sized(n)
  count[n] = math.min(redis.call('ZCARD', z .. ':' .. n), MANY)
  moved[n] = true
end

-- Sets timers of a bucket that is near: score, member, score, member, … None of them is due before `at`.
local function put(n, at, ...)
  local added = redis.call('ZADD', z .. ':' .. n, ...)
  if added > 0 then count[n], moved[n] = math.min(count[n] + added, MANY), true end
  if not first[n] or at < first[n] then first[n], moved[n] = at, true end
end

-- A leased timer waits again, with the time at which it was due. Whether it is one of ours.
local function wait(member, lease)
  local score, n = string.match(lease or '', '^(%d+) (%d+)$')
  if not score then return false end
  near(n)
  put(n, math.floor(tonumber(score) / PARTS), score, member)
  return true
end

-- Removes timers of a bucket that is near.
local function drop(n, ...)
  local gone = redis.call('ZREM', z .. ':' .. n, ...)
  if gone > 0 then
    if count[n] < MANY then count[n], moved[n] = math.max(count[n] - gone, 0), true else sized(n) end
  end
end

-- Writes down what has changed about buckets.
local function save()
  local set, empty = {}, {}
  for n in pairs(moved) do
    if count[n] == 0 then
      empty[#empty + 1] = n
    else
      set[#set + 1] = string.format('%.0f', first[n] * PARTS + count[n])
      set[#set + 1] = n
    end
  end
  for from = 1, #set, 2000 do redis.call('ZADD', z, unpack(set, from, math.min(from + 1999, #set))) end
  for from = 1, #empty, 1000 do redis.call('ZREM', z, unpack(empty, from, math.min(from + 999, #empty))) end
  moved = {}
end
