-- The requests of `ops/bench proxy` for wrk: one for each line of a file (host, tab, cookie), in turn.
--
--   wrk … -s proxy.lua URL -- FILE PATH [count]
--
-- With `count` every answer is looked at, which costs the generator time: how many were not 200, and how many 502.

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
  others, bad_gateway = 0, 0
  if args[3] == "count" then
    response = function(status)
      if status ~= 200 then
        others = others + 1
        if status == 502 then bad_gateway = bad_gateway + 1 end
      end
    end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local others, bad_gateway = 0, 0
  for _, thread in ipairs(threads) do
    others = others + thread:get("others")
    bad_gateway = bad_gateway + thread:get("bad_gateway")
  end
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, "broken": %d, "others": %d, "bad_gateway": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, others, bad_gateway))
end
