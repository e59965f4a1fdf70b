-- The timer that is due next, leased ones not counted. Answers {}, {'damaged'} or {member, score}.
while true do
  local head = redis.call('ZRANGE', z, 0, 0, 'WITHSCORES')
  if not head[1] then return {} end
  local n = head[1]
  learn(n, head[2])
  local timer = redis.call('ZRANGE', z .. ':' .. n, 0, 0, 'WITHSCORES')
  if not timer[1] or not whole(n) then return {'damaged'} end
  local at = math.floor(tonumber(timer[2]) / PARTS)
  if at == first[n] then return timer end
  if at < first[n] then return {'damaged'} end
  first[n], moved[n] = at, true
  save()
end
