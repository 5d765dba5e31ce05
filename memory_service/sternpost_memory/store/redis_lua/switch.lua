-- Put a generation that was computed beside the current one in its place.
--
-- KEYS: meta, old commits, old versions, old documents, new commits, new versions, new documents
-- ARGV: old generation, new generation, consolidated, number of commits
-- Returns {'done'}, {'again'} (it is in its place already), {'generation'}, {'behind'} (more was consolidated meanwhile)
-- or {'gone'} (what was computed is not there any more).
local meta = KEYS[1]
local state = redis.call('HMGET', meta, 'generation', 'consolidated', 'commits')
local current = state[1] or '0'
if current == ARGV[2] then return {'again'} end
if current ~= ARGV[1] then return {'generation'} end
if (state[2] or '0') ~= ARGV[3] or (state[3] or '0') ~= ARGV[4] then return {'behind'} end
if redis.call('XLEN', KEYS[5]) ~= tonumber(ARGV[4]) then return {'gone'} end

redis.call('HSET', meta, 'generation', ARGV[2], 'stamp', ARGV[2])
for number = 5, 7 do redis.call('PERSIST', KEYS[number]) end
for number = 2, 4 do redis.call('UNLINK', KEYS[number]) end
return {'done'}
