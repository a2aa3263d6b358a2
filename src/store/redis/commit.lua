-- Writes or deletes n documents with their audit entries, indexes, counters and cache invalidation: all of it or nothing, once
-- for each operation.
--
-- Redis keeps what a failed script wrote, so everything that can fail comes before the first write: the operation's
-- idempotency record, the types of all keys, the comparison, and the user's permissions. Documents and entries pass through as
-- opaque bytes: cjson would turn [] into {} and round numbers.
--
-- KEYS  1 idempotency record   2 audit:entries   3 audit:stats   4 scratch (for the self-test)   5 the history
--       6 meta:schema:version, or scratch again where the user has no access to that   7 the history index
--       8 the ends of the log (see history_index/ends.lua, which comes before this)
--       then 8 for each document: data, latest entry, index:all, index:published, index:featured, cache of the kind, cache of the document,
--       checksum
-- ARGV  1 fingerprint   2 TTL of the record in seconds   3 milliseconds since 1970, if the server has no clock for scripts   4 n
--       5 how an entry begins, a format for its seq and its time
--       then 14 for each document: expected text ('' = must not exist), expected beginning of the latest entry ('' = none),
--       new text ('' = delete it), id, published (0|1), featured (0|1), action, entityType, source, entry without seq and timestamp,
--       how the entry's two members of the history index begin, and how both end (see history_index.rs), checksum of the new text
-- reply one text: 'OK' with milliseconds, seq of the first entry, n, and how many members the history index lacked before;
--       'REPLAY' with the first three; 'CONFLICT'; 'MISMATCH'; 'NOPERM' with the command
local KEYS, ARGV, call = KEYS, ARGV, redis.call -- a local is found faster than a global, fifty times
local RECORD, ENTRIES, STATS, SCRATCH, HISTORY, SCHEMA, INDEX, ENDS = unpack(KEYS, 1, 8)
local n, FORMAT = tonumber(ARGV[4]), ARGV[5]
local function offsets(i) return 8 + (i - 1) * 8, 5 + (i - 1) * 14 end -- of document i in KEYS and ARGV
local LAST = 253402300799999 -- 9999-12-31T23:59:59.999Z, as Timestamp::LAST: a higher score is no time
local function digits(x) return string.format('%.0f', x) end -- tostring() writes 1.77e+15 from 1e15 up

-- As JavaScript's toISOString; days to civil date after Howard Hinnant.
local function iso(ms)
  local f = math.floor
  local s = f(ms / 1000)
  local d, r = f(s / 86400), s % 86400
  local z = d + 719468
  local era = f(z / 146097)
  local doe = z - era * 146097
  local yoe = f((doe - f(doe / 1460) + f(doe / 36524) - f(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + f(yoe / 4) - f(yoe / 100))
  local mp = f((5 * doy + 2) / 153)
  local day, month, year = doy - f((153 * mp + 2) / 5) + 1, mp < 10 and mp + 3 or mp - 9, yoe + era * 400
  if month <= 2 then year = year + 1 end
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, f(r / 3600), f(r % 3600 / 60), r % 60, ms % 1000)
end

-- May this user run what reads? A command that is refused ends a script with an error that does not name it.
local refused
local function need(command, key, ...)
  if not refused and not redis.acl_check_cmd(command, key, ...) then refused = command .. ' ' .. key end
end
if redis.acl_check_cmd then
  need('GET', RECORD)
  need('SISMEMBER', KEYS[11], '')
  need('ZCARD', ENTRIES)
  need('ZRANGE', ENTRIES, '0', '0')
  need('HMGET', STATS, 'f')
  if refused then return 'NOPERM ' .. refused end
end

-- The same operation again?
local record = call('GET', RECORD)
if record then
  -- Version 0.1.0 wrote `inf` as milliseconds after an entry with that score.
  local fingerprint, ms, seq, count = string.match(record, '^(%x+)|([^|]*)|(%d+)|(%d+)$')
  if fingerprint ~= ARGV[1] then return 'MISMATCH' end
  return 'REPLAY ' .. ms .. ' ' .. seq .. ' ' .. count
end

-- Is everything as it was when the changes were made? A key of the wrong type raises here.
local moves, added, fields, seen = {}, {}, {}, {} -- moves: what the indexes lack
for i = 1, n do
  local k, a = offsets(i)
  local document, id = KEYS[k + 1], ARGV[a + 4]
  if seen[document] then return 'CONFLICT' end -- the second change was not made from what the first one stores
  seen[document] = true
  local text, latest = call('GET', document), call('GET', KEYS[k + 2])
  local expected, beginning = ARGV[a + 1], ARGV[a + 2]
  if (text or '') ~= expected or (text and expected == '') then return 'CONFLICT' end
  if beginning == '' and latest or string.sub(latest or '', 1, #beginning) ~= beginning then return 'CONFLICT' end
  local wanted = {[3] = ARGV[a + 3] ~= '', [4] = ARGV[a + 5] == '1', [5] = ARGV[a + 6] == '1'}
  for j = 3, 5 do
    if (call('SISMEMBER', KEYS[k + j], id) == 1) ~= wanted[j] then moves[#moves + 1] = {wanted[j] and 'SADD' or 'SREM', KEYS[k + j], id} end
  end
  for _, field in ipairs({'action:' .. ARGV[a + 7], 'entityType:' .. ARGV[a + 8], 'source:' .. ARGV[a + 9]}) do
    if not added[field] then added[field] = 0; fields[#fields + 1] = field end
    added[field] = added[field] + 1
  end
end
local lacking = 2 * call('ZCARD', ENTRIES) - call('ZCARD', INDEX)
-- Only who knows of all entries before may say that this one is the next.
local ends, last = call('GET', ENDS) or '', end_of(ENTRIES, -1)
local knows_ends = string.sub(ends, DIGITS + 1) == last and (last ~= '' or lacking == 0)
local newest, stray = call('ZRANGE', ENTRIES, -1, -1, 'WITHSCORES'), nil
local function score_of(entry) return entry[2] and (tonumber(entry[2]) or math.huge) or 0 end
if score_of(newest) > LAST then -- somebody's mistake, such as `inf` or microseconds, which later entries must not repeat
  stray = newest[1]
  newest = call('ZRANGE', ENTRIES, LAST, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
end
fields[#fields + 1] = 'seq'
local counted = call('HMGET', STATS, unpack(fields))
-- A lost counter must not start again at 1: the newest entry has a say, and without a counter the newest one with a number.
local BEFORE_SEQ = string.match(FORMAT, '^[^%%]*')
local function numbered(entry)
  local number = string.sub(entry or '', 1, #BEFORE_SEQ) == BEFORE_SEQ and tonumber(string.match(entry, '^%s*(%d+)', #BEFORE_SEQ + 1))
  return number and number < 2 ^ 53 and number or nil -- beyond that, one more is the same number
end
local counter, found = tonumber(counted[#fields] or nil), numbered(newest[1])
if numbered(stray) then found = math.max(found or 0, numbered(stray)) end
local rank = -2
while not counter and not found do
  local older = call('ZRANGE', ENTRIES, rank - 99, rank)
  if #older == 0 then break end
  for i = #older, 1, -1 do found = found or numbered(older[i]) end
  rank = rank - 100
end
local seq = math.max(counter or 0, found or 0)
added.seq = seq + n
local hset = {'HSET', STATS}
for j, field in ipairs(fields) do
  hset[#hset + 1] = field
  hset[#hset + 1] = digits(field == 'seq' and added.seq or (tonumber(counted[j] or '0') or 0) + added[field])
end

-- The server's clock, so that writers need not agree on theirs; scores never go back.
local now = redis.pcall('TIME')
local ms = (type(now) == 'table' and not now.err and now[1]) and tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) or tonumber(ARGV[3])
ms = math.max(ms, math.min(math.ceil(score_of(newest)), LAST))

-- What identifies the history: each entry mixed into what identified it before. See domain/history.rs.
local before = redis.pcall('GET', HISTORY)
local mixed = tonumber(type(before) == 'string' and string.match(before, '^[^|]*|[^|]*|[^|]*|(%d+)$') or nil) or 0
local function mix(x) mixed = (mixed * 1000003 + x) % 4294967296 end
for _ = 1, n do
  mix(ms % 4294967296)
  mix(tonumber(string.sub(ARGV[1], 1, 8), 16))
  mix(tonumber(string.sub(ARGV[1], 9, 16), 16))
end

-- The first write says how the store is laid out. What another program put there stays.
local unmarked = SCHEMA ~= SCRATCH and redis.pcall('TYPE', SCHEMA).ok == 'none'

-- May this user do all that follows? A command that is refused half-way would leave an entry without its document.
if redis.acl_check_cmd then
  need('ZADD', ENTRIES, '0', '')
  need('ZADD', INDEX, '0', '')
  need('HSET', STATS, 'f', '0')
  need('SET', RECORD, '', 'EX', '1')
  need('SET', HISTORY, '')
  need('SET', ENDS, '')
  for i = 1, n do
    local k, a = offsets(i)
    if i == 1 then -- in any case: a missing permission shows at the first write, not at the first that needs it
      need('SADD', KEYS[k + 3], '')
      need('SREM', KEYS[k + 3], '')
    end
    for _, key in ipairs({KEYS[k + 1], KEYS[k + 8]}) do
      if ARGV[a + 3] == '' then need('DEL', key) else need('SET', key, '') end
    end
    need('SET', KEYS[k + 2], '')
    need('DEL', KEYS[k + 6], KEYS[k + 7])
  end
  for _, move in ipairs(moves) do need(move[1], move[2], '') end
  -- Nothing depends on the mark, so no write is refused for it.
  unmarked = unmarked and redis.acl_check_cmd('SET', SCHEMA, '1')
  if refused then return 'NOPERM ' .. refused end
else
  -- An older server cannot be asked, so each command is tried on a key of our own; that all keys are in reach, the
  -- server has checked before it ran this script. SET XX comes first: it writes nothing, but meets a full memory,
  -- which refuses only what precedes every write, and a replica.
  local tries = {
    {'SET', SCRATCH, '', 'XX'}, {'DEL', SCRATCH}, {'SADD', SCRATCH, 'm'}, {'SREM', SCRATCH, 'm'}, {'DEL', SCRATCH},
    {'ZADD', SCRATCH, '0', 'm'}, {'DEL', SCRATCH}, {'HSET', SCRATCH, 'f', '0'}, {'DEL', SCRATCH},
  }
  for _, command in ipairs(tries) do
    local result = redis.pcall(unpack(command))
    if type(result) == 'table' and result.err then
      redis.pcall('DEL', SCRATCH)
      if string.find(result.err, 'can\'t run this command', 1, true) or string.find(string.upper(result.err), 'NOPERM', 1, true)
        or string.find(result.err, 'no permissions', 1, true) then
        return 'NOPERM ' .. command[1]
      end
      return redis.error_reply(string.match(result.err, '%-(%u+ .*)$') or result.err) -- without the place in this script
    end
  end
end

-- From here on only writes, none of which can fail: a full memory refuses the first one only.
local score, first, timestamp = digits(ms), digits(seq + 1), iso(ms)
local entries = {}
local zadd, places = {'ZADD', ENTRIES}, {'ZADD', INDEX}
for i = 1, n do
  local _, a = offsets(i)
  entries[i] = string.format(FORMAT, seq + i, timestamp) .. ARGV[a + 10]
  zadd[#zadd + 1] = score
  zadd[#zadd + 1] = entries[i]
  local place = string.format('%016.0f', ms) .. string.match(entries[i], '^[^,]*') .. ARGV[a + 13]
  for head = a + 11, a + 12 do
    places[#places + 1] = '0'
    places[#places + 1] = ARGV[head] .. place
  end
end
call(unpack(zadd))
call(unpack(places))
if knows_ends then
  local oldest = last == '' and end_of(ENTRIES, 0) or string.sub(ends, 1, DIGITS)
  call('SET', ENDS, oldest .. end_of(ENTRIES, -1))
end
call(unpack(hset))
for i = 1, n do
  local k, a = offsets(i)
  if ARGV[a + 3] == '' then
    call('DEL', KEYS[k + 1], KEYS[k + 8])
  else
    call('SET', KEYS[k + 1], ARGV[a + 3])
    call('SET', KEYS[k + 8], ARGV[a + 14])
  end
  call('SET', KEYS[k + 2], entries[i])
  call('DEL', KEYS[k + 6], KEYS[k + 7])
end
for _, move in ipairs(moves) do call(unpack(move)) end
if unmarked then call('SET', SCHEMA, '1') end
call('SET', HISTORY, score .. '|' .. digits(seq + n) .. '|' .. ARGV[1] .. '|' .. digits(mixed))
call('SET', RECORD, ARGV[1] .. '|' .. score .. '|' .. first .. '|' .. ARGV[4], 'EX', ARGV[2])
return 'OK ' .. score .. ' ' .. first .. ' ' .. ARGV[4] .. ' ' .. digits(lacking)
