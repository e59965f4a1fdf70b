-- Takes from limiters, generic cell rate algorithms in microseconds. KEYS: the limiters. ARGV: now; then of each interval, burst and how many
-- are wanted. Fields: t, the theoretical arrival time of the next; h, the end of a hold. Answers of each how many were taken, and when to come
-- again for the others ('' when there are none).
local now, answers = tonumber(ARGV[1]), {}
for n, key in ipairs(KEYS) do
  local interval, burst, wanted = tonumber(ARGV[3 * n - 1]), tonumber(ARGV[3 * n]), tonumber(ARGV[3 * n + 1])
  local state = redis.call('HMGET', key, 't', 'h')
  local arrival, held = math.max(tonumber(state[1] or '0'), now), tonumber(state[2] or '0')
  local taken, from = 0, 0
  while taken < wanted do
    from = math.max(arrival + interval - burst * interval, held)
    if now < from then break end
    arrival, taken = arrival + interval, taken + 1
  end
  if taken > 0 then
    redis.call('HSET', key, 't', string.format('%.0f', arrival))
    -- Once the burst is whole again there is nothing left to know, unless it is held. A minute more for clocks that differ.
    local rest = math.ceil((arrival - now) / 1000) + 60000
    if not state[2] or redis.call('PTTL', key) < rest then redis.call('PEXPIRE', key, rest) end
  end
  answers[2 * n - 1] = taken
  answers[2 * n] = taken < wanted and string.format('%.0f', from) or ''
end
return answers
