-- Remember that all which is in the log now shall be consolidated.
--
-- KEYS: meta, jobs
-- ARGV: job, now
-- Returns {first, last, consolidated}.
local meta, jobs = KEYS[1], KEYS[2]
local job, now = ARGV[1], ARGV[2]

redis.call('HSETNX', meta, 'created', now)
local state = redis.call('HMGET', meta, 'last', 'consolidated')
local last = state[1] or '0'
local consolidated = state[2] or '0'
local first = string.format('%d', math.min(tonumber(consolidated) + 1, tonumber(last)))
redis.call('HSETNX', jobs, job, 'consolidation ' .. first .. ' ' .. last .. ' ' .. now)
return {first, last, consolidated}
