-- What follows a place in a space, seen in one moment. (Within MULTI, Redis refuses even to read where memory is short.)
--
-- KEYS: meta, log, commits (of the generation that the follower knows)
-- ARGV: observation to begin with, how many at most, commit to begin with, how many at most (0 for none)
-- Returns {{generation, stamp, created, last, commits}, log entries, commit entries}.
local meta = redis.call('HMGET', KEYS[1], 'generation', 'stamp', 'created', 'last', 'commits')
local log = redis.call('XRANGE', KEYS[2], ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])
local commits = {}
if ARGV[4] ~= '0' then
  commits = redis.call('XRANGE', KEYS[3], ARGV[3] .. '-0', '+', 'COUNT', ARGV[4])
end
return {meta, log, commits}
