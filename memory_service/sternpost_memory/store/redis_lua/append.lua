-- Write a batch to the log of a space, whole or not at all.
--
-- KEYS: meta, log, jobs, requests
-- ARGV: job, now, mark, idempotency key ('' for none), request hash, text bytes of each observation (JSON array),
--       then each observation
-- Returns {'written'|'job', first, last}, {'key', job, first, last} or {'reused'}.
--
-- The same call may arrive twice, when its answer was lost: the job, named by the caller, tells.
local meta, log, jobs, requests = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local job, now, mark, key, hash = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local sizes = cjson.decode(ARGV[6])
local HEAD = 6

local function words(line)
  local found = {}
  for word in string.gmatch(line, '%S+') do found[#found + 1] = word end
  return found
end

-- "KIND FIRST LAST CREATED"
local known = redis.call('HGET', jobs, job)
if known then
  local part = words(known)
  return {'job', part[2], part[3]}
end
if key ~= '' then
  -- "JOB HASH FIRST LAST"
  local earlier = redis.call('HGET', requests, key)
  if earlier then
    local part = words(earlier)
    if part[2] ~= hash then return {'reused'} end
    return {'key', part[1], part[3], part[4]}
  end
end

local before = redis.call('HMGET', meta, 'last', 'bytes')
local last = tonumber(before[1] or '0')
local bytes = tonumber(before[2] or '0')
local first = string.format('%d', last + 1)
-- The first write of this script: where memory is short, Redis refuses here, and nothing has happened.
redis.call('HSETNX', meta, 'created', now)
for number = 1, #ARGV - HEAD do
  bytes = bytes + sizes[number]
  redis.call('XADD', log, string.format('%d-0', last + number),
    'o', ARGV[HEAD + number], 't', now, 'z', string.format('%d', bytes), 'm', mark)
end
last = string.format('%d', last + #ARGV - HEAD)
redis.call('HSET', meta, 'last', last, 'bytes', string.format('%d', bytes), 'stamp', job)
redis.call('HSET', jobs, job, 'ingest ' .. first .. ' ' .. last .. ' ' .. now)
if key ~= '' then
  redis.call('HSET', requests, key, job .. ' ' .. hash .. ' ' .. first .. ' ' .. last)
end
return {'written', first, last}
