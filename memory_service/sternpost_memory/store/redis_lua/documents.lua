-- The documents of topics, where they still have the versions that are asked for.
--
-- KEYS: versions, documents
-- ARGV: for each topic: id, version
-- Returns for each topic the document, or nothing where it has another version.
local found = {}
for at = 1, #ARGV, 2 do
  local document = false
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then
    document = redis.call('HGET', KEYS[2], ARGV[at])
  end
  found[#found + 1] = document
end
return found
