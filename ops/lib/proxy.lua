-- The requests of `ops/bench proxy` for wrk: one for each line of a file (host, tab, cookie), in turn.
--
--   wrk … -s proxy.lua URL -- FILE PATH [count]
--
-- With `count` every answer is looked at, which costs the generator time: how many had each status.

local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

-- What a browser sends for an IDE, and what Caddy adds.
local headers = {
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
  ["Accept"] = "*/*",
  ["Accept-Language"] = "en-US,en;q=0.5",
  ["Accept-Encoding"] = "gzip, deflate, br, zstd",
  ["Sec-Fetch-Dest"] = "empty",
  ["Sec-Fetch-Mode"] = "cors",
  ["Sec-Fetch-Site"] = "same-origin",
}

function init(args)
  requests = {}
  for line in io.lines(args[1]) do
    local host, cookie = line:match("^(.-)\t(.*)$")
    headers["Host"] = host
    headers["Cookie"] = cookie
    requests[#requests + 1] = wrk.format("GET", args[2], headers)
  end
  -- Threads begin at different places.
  at = number * 7919 % #requests
  statuses = {}
  if args[3] == "count" then
    response = function(status) statuses[status] = (statuses[status] or 0) + 1 end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local seen = {}
  for _, thread in ipairs(threads) do
    for status, number in pairs(thread:get("statuses")) do seen[status] = (seen[status] or 0) + number end
  end
  local told = {}
  for status, number in pairs(seen) do told[#told + 1] = string.format('"%d": %d', status, number) end
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, "broken": %d, "statuses": {%s}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, table.concat(told, ", ")))
end
