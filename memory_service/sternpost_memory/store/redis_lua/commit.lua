-- Apply a consolidation whole, on the state that it was computed from, or not at all.
--
-- KEYS: meta, log, commits, versions, documents (of the generation), staged
-- ARGV: commit, generation, base, last, entry, mark, then for each topic: id, version that it was computed from, new version
-- Returns {'done'}, {'again'} (this very commit was applied before), {'base', consolidated}, {'generation'},
-- {'topic', id} or {'staged'} (the staged documents are gone).
local meta, log, commits, versions, documents, staged = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local commit, generation, base, last, entry, mark = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local HEAD = 6

local state = redis.call('HMGET', meta, 'last', 'consolidated', 'generation', 'commits', 'commit')
if state[5] == commit then return {'again'} end
if (state[3] or '0') ~= generation then return {'generation'} end
local consolidated = state[2] or '0'
if consolidated ~= base or tonumber(last) > tonumber(state[1] or '0') then return {'base', consolidated} end
local topics = {}
for at = HEAD + 1, #ARGV, 3 do
  local topic = {id = ARGV[at], version = ARGV[at + 2], document = redis.call('HGET', staged, ARGV[at])}
  if (redis.call('HGET', versions, topic.id) or '0') ~= ARGV[at + 1] then return {'topic', topic.id} end
  if not topic.document then return {'staged'} end
  topics[#topics + 1] = topic
end
local newest = redis.call('XRANGE', log, last .. '-0', last .. '-0')[1][2]
local consumed
for at = 1, #newest, 2 do
  if newest[at] == 'z' then consumed = newest[at + 1] end
end

local number = string.format('%d', tonumber(state[4] or '0') + 1)
-- The first write of this script: where memory is short, Redis refuses here, and nothing has happened.
redis.call('XADD', commits, number .. '-0', 'e', entry, 'm', mark)
for _, topic in ipairs(topics) do
  redis.call('HSET', versions, topic.id, topic.version)
  redis.call('HSET', documents, topic.id, topic.document)
end
redis.call('HSET', meta, 'consolidated', last, 'consumed', consumed, 'commits', number, 'commit', commit,
  'stamp', commit)
redis.call('UNLINK', staged)
return {'done'}
