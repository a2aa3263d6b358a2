-- Keeps a plan, and drops the plans that are too old or too many.
-- KEYS: plans by id, their times
-- ARGV: id, plan, its time in milliseconds, how many to keep, how many bytes of them, and for how
-- many milliseconds
local plans, times = KEYS[1], KEYS[2]
local id, plan, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local max_count, max_bytes, ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

-- First what a full Redis refuses: once a script has written, it is not stopped any more. The rest of
-- these has no effect, but a user who may not call one of them keeps no plan that nobody drops.
redis.call('ZADD', times, now, id)
redis.call('ZREM', times, id)
redis.call('HDEL', plans, id)
redis.call('HSTRLEN', plans, id)
redis.call('PEXPIRE', times, ttl)

local count, bytes = 1, #plan
local oldest_first = redis.call('ZRANGE', times, 0, -1, 'WITHSCORES')
for index = #oldest_first - 1, 1, -2 do
  local known, time = oldest_first[index], tonumber(oldest_first[index + 1])
  count, bytes = count + 1, bytes + redis.call('HSTRLEN', plans, known)
  if count > max_count or bytes > max_bytes or time + ttl <= now then
    redis.call('HDEL', plans, known)
    redis.call('ZREM', times, known)
  end
end

redis.call('ZADD', times, now, id)
redis.call('HSET', plans, id, plan)
redis.call('PEXPIRE', times, ttl)
redis.call('PEXPIRE', plans, ttl)
return redis.status_reply('OK')
