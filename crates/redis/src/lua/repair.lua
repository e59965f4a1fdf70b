-- Takes everything away, whatever it is by now: somebody put something of another type in the place of a part of the view.
forget()
-- The list of the buckets of marks may be what was lost: they lie within this many days.
local base, day = string.sub(c, 1, -2), today()
for from = -2, 97, 50 do
  local names = {}
  for n = from, from + 49 do names[#names + 1] = base .. 'm:' .. string.format('%.0f', day + n) end
  redis.call('UNLINK', unpack(names))
end
return ''
