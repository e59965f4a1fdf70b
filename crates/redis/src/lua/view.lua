-- What the scripts of a view share. KEYS: c v z i d b.
-- c: position, owner, and how much the other parts hold; v: values; z: waiting timers by due time; i: leased ones by the end of
-- their lease; d: the due time of the leased ones; b: the buckets of marks by day.
local c, v, z, i, d, b = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

local function today()
  return math.floor(tonumber(redis.call('TIME')[1]) / 86400)
end

-- The position, or '' when there is none. A part that does not hold as much as was put into it was evicted or changed by hand:
-- the view loses its position then, and its owner builds it again.
local function position(marks)
  local stands = redis.call('HMGET', c, 'off', 'nv', 'nt', 'nb')
  if not stands[1] then return '' end
  local leased = redis.call('ZCARD', i)
  local whole = redis.call('HLEN', v) == tonumber(stands[2] or -1)
    and redis.call('ZCARD', z) + leased == tonumber(stands[3] or -1)
    and redis.call('HLEN', d) == leased
  if whole and marks then
    whole = redis.call('ZCARD', b) == tonumber(stands[4] or -1)
    local buckets = redis.call('ZRANGEBYSCORE', b, today(), '+inf', 'WITHSCORES')
    for n = 1, #buckets, 2 do
      whole = whole and redis.call('HLEN', buckets[n]) == tonumber(redis.call('HGET', c, 'm' .. buckets[n + 1]) or -1)
    end
  end
  if whole then return stands[1] end
  redis.call('HDEL', c, 'off')
  return ''
end

-- Empties the view; its owner stays.
local function forget()
  for _, bucket in ipairs(redis.call('ZRANGE', b, 0, -1)) do redis.call('UNLINK', bucket) end
  local owner = redis.call('HGET', c, 'ep')
  redis.call('UNLINK', c, v, z, i, d, b)
  if owner then redis.call('HSET', c, 'ep', owner) end
end
