-- Reads entries of the log through the history index, newest first. See history_index.rs for what a member holds.
--
-- KEYS  1 the history index   2 audit:entries   3 the ends of the log (see ends.lua, which comes before this)
-- ARGV  1 how many members at most   2 after how many bytes of entries no more are read; 0: members alone
--       3 the letter of a kind, or '' for any
--       then 2 for each part of the index: its greatest member and its least, as ZRANGE BYLEX takes them
-- reply {'LACKS', n}: the index has n members less than the log needs, or as many for other entries; {'CROWDED'}: too many entries begin alike;
--       {'OK', the part to go on in or 0, its greatest member then, and for each member {it, the entries that may be its own…}}
local INDEX, ENTRIES, ENDS, call = KEYS[1], KEYS[2], KEYS[3], redis.call
local wanted, budget, letter_wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local MAX_ALIKE, PIECE = 100, 100

local lacks = 2 * call('ZCARD', ENTRIES) - call('ZCARD', INDEX)
if lacks ~= 0 or (call('GET', ENDS) or '') ~= ends_of(ENTRIES) then return {'LACKS', lacks} end

-- Whether a text comes before all that have this beginning. Not with `<`, which compares as the server's language does.
local function is_before(text, beginning)
  for i = 1, #beginning do
    local x, y = string.byte(text, i) or -1, string.byte(beginning, i)
    if x ~= y then return x < y end
  end
  return false
end

-- The entries with this score and this beginning. Redis orders the entries of a score by their bytes.
local function entries_at(score, beginning)
  local known = {}
  local function at(n)
    if known[n] == nil then known[n] = call('ZRANGE', ENTRIES, score, score, 'BYSCORE', 'LIMIT', n, 1)[1] or false end
    return known[n]
  end
  local function is_early(n) return at(n) and is_before(at(n), beginning) end
  local first = 0
  if is_early(0) then
    local step = 1
    while is_early(first + step) do first, step = first + step, 2 * step end
    local last = first + step
    while last - first > 1 do
      local middle = math.floor((first + last) / 2)
      if is_early(middle) then first = middle else last = middle end
    end
    first = last
  end
  local found = {}
  while at(first) and string.sub(at(first), 1, #beginning) == beginning do
    found[#found + 1] = at(first)
    if #found > MAX_ALIKE then return nil end
    first = first + 1
  end
  return found
end

local reply, bytes = {'OK', 0, ''}, 0
local limit = math.min(wanted, PIECE)
for part = 1, (#ARGV - 3) / 2 do
  local greatest, least = ARGV[2 + 2 * part], ARGV[3 + 2 * part]
  repeat
    local members = call('ZRANGE', INDEX, greatest, least, 'BYLEX', 'REV', 'LIMIT', 0, limit)
    for _, member in ipairs(members) do
      if #reply - 3 >= wanted or (bytes > 0 and bytes >= budget) then
        reply[2], reply[3] = part, greatest
        return reply
      end
      local place = string.match(member, '^.\n[^\n]*\n(.*)$')
      local beginning, letter, exact = string.match(string.sub(place, 17), '^(.*)\n(.)[^\n]*\n([^\n]*)$')
      if letter_wanted == '' or letter == letter_wanted then
        local found = {member}
        if budget > 0 then
          local entries = entries_at(exact ~= '' and exact or string.sub(place, 1, 16), beginning)
          if not entries then return {'CROWDED'} end
          for _, entry in ipairs(entries) do
            found[#found + 1] = entry
            bytes = bytes + #entry
          end
        end
        reply[#reply + 1] = found
      end
      greatest = '(' .. member
    end
  until #members < limit
end
return reply
