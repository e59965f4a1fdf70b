-- Takes from limiters, generic cell rate algorithms in microseconds. KEYS: the limiters. ARGV: now; then of each interval, burst and how many
-- are wanted. A limiter is "t h": t, the theoretical arrival time of the next; h, the end of a hold. Answers of each how many were taken, and
-- when to come again for the others ('' when there are none).
local now, answers = tonumber(ARGV[1]), {}
local states = redis.call('MGET', unpack(KEYS))
for n, key in ipairs(KEYS) do
  local interval, burst, wanted = tonumber(ARGV[3 * n - 1]), tonumber(ARGV[3 * n]), tonumber(ARGV[3 * n + 1])
  local t, h = string.match(states[n] or '', '^(%-?%d+) (%-?%d+)$')
  local arrival, held = math.max(tonumber(t or '0'), now), tonumber(h or '0')
  local taken, from = 0, 0
  while taken < wanted do
    from = math.max(arrival + interval - burst * interval, held)
    if now < from then break end
    arrival, taken = arrival + interval, taken + 1
  end
  if taken > 0 then
    -- Once the burst is whole again there is nothing left to know, unless it is held. A minute more for clocks that differ.
    local rest = math.ceil((math.max(arrival, held) - now) / 1000) + 60000
    redis.call('SET', key, string.format('%.0f %.0f', arrival, held), 'PX', string.format('%.0f', rest))
  end
  answers[2 * n - 1] = taken
  answers[2 * n] = taken < wanted and string.format('%.0f', from) or ''
end
return answers
