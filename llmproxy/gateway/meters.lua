-- Meters that several replicas share. All of a call is done or nothing of it, at the time of this server's clock.
--
-- KEYS[1] holds the epoch: a word that is gone when the data were lost. KEYS[2] is the set of the names of all meters.
-- KEYS[n + 2] is the meter of item n, a hash:
--   kind "w": the Unix time at which an amount comes back → that amount
--   kind "b": used, at → what was used of a bucket at that time; `rate` units a second come back
--   kind "c": the id of a request → the Unix time until which it is believed to be in flight
-- ARGV[1] is the epoch that the caller knows, ARGV[2] a JSON list of items
-- {key, op, kind, field, amount, cap, rate, fresh, group}. The operations:
--   take    add `amount` to `field` if all items of the same `group`, which stand together, fit under their `cap`
--   change  add `amount`, which may be negative, to what was taken before; when that is over, to `fresh`
--   raise   at least `cap` is used, whoever used it
--   rejoin  after a loss of data: this replica has used `amount`, and knows that the others have used `cap`
--   scale   no more than `cap` is used
--   renew   the request of `field` is still in flight
--   look    change nothing
-- Returns JSON: the time, the epoch (another one than given: then nothing was done), of each group that was to be taken
-- which of its items is full (0 when it was taken, -1 when a window was over before), and of each item what is used and
-- when some of it comes back.

local SLACK = 1e-6
local FOREVER = 4e9
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6

local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return cjson.encode({now = now, epoch = epoch or '', lost = true})
end

local items = cjson.decode(ARGV[2])
local used, back = {}, {}

local function read(item, key)
  local sum, soonest = 0, FOREVER
  if item.kind == 'b' then
    local found = redis.call('HMGET', key, 'used', 'at')
    sum = math.max(0, (tonumber(found[1]) or 0) - (now - (tonumber(found[2]) or now)) * item.rate)
    return sum, now
  end
  local cells = redis.call('HGETALL', key)
  for i = 1, #cells, 2 do
    local ends = tonumber(item.kind == 'c' and cells[i + 1] or cells[i])
    if ends <= now then
      redis.call('HDEL', key, cells[i])
    else
      sum = sum + (item.kind == 'c' and 1 or tonumber(cells[i + 1]))
      soonest = math.min(soonest, ends)
    end
  end
  return sum, soonest
end

local function keep(item, key, ends)
  redis.call('SADD', KEYS[2], item.key)
  if ends >= FOREVER then
    redis.call('PERSIST', key)
  elseif redis.call('TTL', key) < ends - now then
    redis.call('EXPIRE', key, math.ceil(ends - now) + 1)
  end
end

local function add(item, key, n, amount)
  if item.kind == 'b' then
    used[n] = math.max(0, read(item, key) + amount)
    redis.call('HSET', key, 'used', tostring(used[n]), 'at', string.format('%.6f', now))
    keep(item, key, now + used[n] / item.rate + 60)
    return
  end
  if item.kind == 'c' then
    if amount < 0 then
      redis.call('HDEL', key, item.field)
    else
      redis.call('HSET', key, item.field, item.fresh)
      keep(item, key, tonumber(item.fresh))
    end
    used[n] = math.max(0, used[n] + amount)
    return
  end
  local field = item.field
  if tonumber(field) <= now or redis.call('HEXISTS', key, field) == 0 then
    if amount <= 0 then return end
    if tonumber(field) <= now then field = item.fresh or field end
  end
  used[n] = used[n] + amount
  redis.call('HINCRBYFLOAT', key, field, tostring(amount))
  keep(item, key, tonumber(field))
end

local function change(item, key, n)
  used[n], back[n] = read(item, key)
  if item.op == 'change' then
    add(item, key, n, item.amount)
  elseif item.op == 'raise' then
    if item.cap > used[n] then add(item, key, n, item.cap - used[n]) end
  elseif item.op == 'rejoin' then
    -- The first one tells the use of the others, too; each of them then adds only what the first did not know of.
    local lump = tonumber(redis.call('GET', key .. ':lump'))
    local more = lump == nil and item.amount + item.cap - used[n] or item.amount - lump
    redis.call('SET', key .. ':lump', tostring(lump == nil and item.cap or math.max(0, lump - item.amount)), 'EX', 60)
    if more > 0 then add(item, key, n, more) end
  elseif item.op == 'scale' and used[n] > item.cap then
    local share = math.max(0, item.cap) / used[n]
    if item.kind == 'b' then
      add(item, key, n, item.cap - used[n])
    elseif item.kind == 'w' then
      local cells = redis.call('HGETALL', key)
      for i = 1, #cells, 2 do
        redis.call('HSET', key, cells[i], tostring(tonumber(cells[i + 1]) * share))
      end
      used[n] = item.cap
    end
  elseif item.op == 'look' and used[n] == 0 and redis.call('EXISTS', key) == 0 then
    redis.call('SREM', KEYS[2], item.key)
  elseif item.op == 'renew' and redis.call('HEXISTS', key, item.field) == 1 then
    redis.call('HSET', key, item.field, item.fresh)
    keep(item, key, tonumber(item.fresh))
  end
end

-- Whoever takes is served in order: an earlier lease leaves less for a later one.
local full = {}
local n = 1
while n <= #items do
  local item = items[n]
  if item.op == 'take' then
    local last, group = n, item.group
    while items[last + 1] and items[last + 1].group == group do last = last + 1 end
    local why = 0
    for m = n, last do
      used[m], back[m] = read(items[m], KEYS[m + 2])
      if why == 0 then
        if items[m].kind == 'w' and tonumber(items[m].field) <= now then
          why = -1
        elseif items[m].amount > 0 and used[m] + items[m].amount > items[m].cap + SLACK then
          why = m - n + 1
        end
      end
    end
    for m = n, last do
      if why == 0 and items[m].amount > 0 then add(items[m], KEYS[m + 2], m, items[m].amount) end
    end
    full[#full + 1] = why
    n = last + 1
  else
    change(item, KEYS[n + 2], n)
    n = n + 1
  end
end

return cjson.encode({now = now, epoch = epoch, full = full, used = used, back = back})
