-- Add a commit to a generation that nobody reads yet.
--
-- KEYS: commits, versions, documents
-- ARGV: number, entry, mark, seconds that what is not put in place lives on
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local count = newest and tonumber(string.match(newest[1], '^%d+')) or 0
-- The same call may arrive twice, when its answer was lost.
if count < tonumber(ARGV[1]) then
  redis.call('XADD', KEYS[1], ARGV[1] .. '-0', 'e', ARGV[2], 'm', ARGV[3])
end
for number = 1, 3 do redis.call('EXPIRE', KEYS[number], ARGV[4]) end
return {'done'}
