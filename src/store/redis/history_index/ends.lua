-- What tells the entries at both ends of the log from others. Counts alone do not show that one entry was added and another
-- one removed. `internal:history-index:ends` holds what the ends were when the index was built, and a commit moves it on only
-- if it still held: so every entry that others add at the end, or take from the begin, shows.
local DIGITS = 40
local BEGINNING = 200 -- of an entry, which may be large: where its number and its id are

-- A digest of the entry at a rank of the log; '' if there is none.
local function end_of(log, rank)
  local text, score = unpack(redis.call('ZRANGE', log, rank, rank, 'WITHSCORES'))
  if not text then return '' end
  return redis.sha1hex(string.format('%.17g %d ', tonumber(score) or 0, #text) .. string.sub(text, 1, BEGINNING))
end

-- Those of the oldest and of the newest entry.
local function ends_of(log) return end_of(log, 0) .. end_of(log, -1) end
