-- One commit: all of it or nothing. What is checked is checked before the first write, so that a refusal leaves no trace.
--
-- KEYS: meta, versions, ids, records, log, examples of the class, crops of the class, receipt.
-- ARGV: server whose settings were looked at ('' where that does not matter), epoch of a new log, class name, expected version, name after the change ('' when the class goes), class id, class record,
--       change record, tag, changes to keep, bytes of them to keep, what the class loses ('all', 'examples', '=' and
--       the id of one example, or ''), receipt or '', seconds
--       to keep it, number of examples; then each example's id and record; then each crop's example id and bytes.
-- Returns {'committed', version}, {'conflict', version found}, {'taken'}, {'done'} when the receipt is there, or {'stranger'} when
-- this is another server.

local meta, versions, ids, records, log, examples, crops, receipt = unpack(KEYS)
local server, new_epoch, name, expected, new_name, class_id = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local class_record, change_record, tag = ARGV[7], ARGV[8], ARGV[9]
local keep_changes, keep_bytes, lost = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local receipt_record, receipt_s, example_count = ARGV[13], ARGV[14], tonumber(ARGV[15])
local first_example = 16
local first_crop = first_example + 2 * example_count

if server ~= '' and string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') ~= server then return {'stranger'} end
if receipt_record ~= '' and redis.call('HEXISTS', receipt, 'record') == 1 then return {'done'} end
local found = tonumber(redis.call('HGET', versions, name) or '0')
if found ~= expected then return {'conflict', found} end
if new_name ~= '' and new_name ~= name and redis.call('HEXISTS', versions, new_name) == 1 then return {'taken'} end

redis.call('HSETNX', meta, 'epoch', new_epoch)
local epoch = redis.call('HGET', meta, 'epoch')
local version = redis.call('HINCRBY', meta, 'version', 1)

if lost == 'all' then
    redis.call('DEL', examples, crops)
elseif lost == 'examples' then
    redis.call('DEL', examples)
elseif lost ~= '' then
    redis.call('HDEL', examples, string.sub(lost, 2))
    redis.call('HDEL', crops, string.sub(lost, 2))
end

if new_name ~= name then redis.call('HDEL', versions, name); redis.call('HDEL', ids, name) end
if new_name == '' then
    redis.call('HDEL', records, class_id)
else
    redis.call('HSET', versions, new_name, version)
    redis.call('HSET', ids, new_name, class_id)
    redis.call('HSET', records, class_id, class_record)
end
for position = first_example, first_crop - 1, 2 do redis.call('HSET', examples, ARGV[position], ARGV[position + 1]) end
for position = first_crop, #ARGV, 2 do redis.call('HSET', crops, ARGV[position], ARGV[position + 1]) end

-- Ids of the stream are <epoch>-<version>, so a gap, an end or another log shows in the ids alone.
redis.call('XADD', log, epoch .. '-' .. version, 'change', change_record, 'tag', tag)
redis.call('HSET', meta, 'tag', tag)
if receipt_record ~= '' then
    redis.call('DEL', receipt)  -- with whoever held it
    redis.call('HSET', receipt, 'record', receipt_record, 'version', version)
    redis.call('EXPIRE', receipt, receipt_s)
end
local bytes = redis.call('HINCRBY', meta, 'log_bytes', #change_record)
local length = redis.call('XLEN', log)
while length > 1 and (length > keep_changes or bytes > keep_bytes) do
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    redis.call('XDEL', log, oldest[1])
    bytes = redis.call('HINCRBY', meta, 'log_bytes', -#oldest[2][2])
    length = length - 1
end
return {'committed', version}
