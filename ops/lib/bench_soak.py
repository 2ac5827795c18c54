"""Owns `ops/bench soak`: the facade at full rate for minutes, and what that does to its memory.

It starts a simulated host and a facade of its own, as the user who calls it, and loads it from one process over the
Unix socket with whatever the public can send. Each second the resident memory of every process of the facade is noted.
A process is bounded when, from the end of the warm-up on, it grows by no more than `GROWTH_MAX_BYTES` and no faster
than `SLOPE_MAX`. Exit status 1 if one is not, or if an answer was lost or was a 5xx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import packages
import soak_load
import uvloop
from common import ROOT, Failure, fail, say
from processes import Ledger

# Caches that have a bound are full after this share of the time.
WARM_UP = 0.3
GROWTH_MAX_BYTES = 16 * 1024**2
# Bytes a minute: a day of it would be less than a gigabyte and a half.
SLOPE_MAX = 1024**2
WINDOW_SECONDS = 5.0
KIB = 1024


@dataclass
class Memory:
    """Resident bytes of one process, second by second."""

    pid: int
    seconds: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def note(self, at: float) -> None:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        self.seconds.append(at)
        self.resident.append(pages * resource.getpagesize())

    def low(self, since: float) -> list[tuple[float, int]]:
        """The least of every `WINDOW_SECONDS`: a password takes 64 MiB while it is checked, and gives them back."""
        windows: dict[int, tuple[float, int]] = {}
        for at, size in zip(self.seconds, self.resident, strict=True):
            key = int(at // WINDOW_SECONDS)
            if at >= since and (key not in windows or size < windows[key][1]):
                windows[key] = (at, size)
        return list(windows.values())

    def bytes_per_minute(self, since: float) -> float:
        """The slope of the straight line that fits the low ones best."""
        return 60 * statistics.linear_regression(*zip(*self.low(since), strict=True)).slope

    def growth(self, since: float) -> float:
        """How much higher the low ones of the last fifth are than those of the first, in the middle of each."""
        sizes = [size for _, size in self.low(since)]
        fifth = max(1, len(sizes) // 5)
        return statistics.median(sizes[-fifth:]) - statistics.median(sizes[:fifth])


async def main() -> int:
    parser = argparse.ArgumentParser(prog="ops/bench soak")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default 1; 10 for figures that count)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the facade (default 2)")
    parser.add_argument("--connections", type=int, default=64, help="at a time (default 64)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medforge-soak-") as name:
        home = Path(name)
        ledger = Ledger(home / "ledger.json")
        try:
            _start(home, ledger, options.workers)
            load = await _prepare(home)
            memories = [Memory(pid) for pid in _processes(ledger, options.workers)]
            took = await _soak(load, memories, options.connections, 60 * options.minutes)
        finally:
            for started in reversed(list(ledger.entries)):
                ledger.stop(started, quiet=True)
    return _report(load, memories, took)


def _start(home: Path, ledger: Ledger, workers: int) -> None:
    """The simulated host and a facade that nobody else uses."""
    venv = packages.virtualenv()
    config = home / "facade.toml"
    quoted = json.dumps
    config.write_text(
        f"[site]\nweb_root = {quoted(str(ROOT / 'web'))}\n[listen]\nsocket = {quoted(str(home / 'facade.sock'))}\n"
        f"[database]\nurl = {quoted(f'sqlite+aiosqlite:///{home}/facade.db')}\n"
        f"[daemon]\nsocket = {quoted(str(home / 'medforged.sock'))}\n"
        # Somebody who floods from many addresses is to be counted and not to be refused early.
        "[limits]\nattempts_per_network = 65000\nattempts_per_address = 65000\nsignups_per_network = 65000\n"
        f'[process]\nallow_privileged = true\nworkers = {workers}\nlog_format = "json"\n'
    )
    for name, argv, made in (
        ("daemon", [venv / "bin" / "medforged", "--simulate", home], home / "medforged.sock"),
        ("facade", [venv / "bin" / "medforge-facade", "--config", config], home / "facade.sock"),
    ):
        log = home / f"{name}.log"
        ledger.start(name, argv, log)
        ledger.wait_ready(name, log, 0, made.exists, 30)


async def _prepare(home: Path) -> soak_load.Load:
    """Somebody with a running session."""
    socket = str(home / "facade.sock")
    account = {"email": "soak@example.org", "password": soak_load.PASSWORD}
    head, body = await soak_load.ask(socket, soak_load.post("/api/v1/auth/signup", account))
    if b" 201 " not in head:
        raise Failure(f"the facade refuses to make an account: {body.decode()}")
    cookies = [line for line in head.decode().split("\r\n") if line.lower().startswith("set-cookie: medforge_session=")]
    token = cookies[0].partition("=")[2].partition(";")[0]
    created = soak_load.post("/api/v1/sessions", {}, {"Cookie": f"medforge_session={token}"})
    head, body = await soak_load.ask(socket, created)
    if b" 201 " not in head:
        raise Failure(f"the facade refuses to start a session: {body.decode()}")
    return soak_load.Load(socket, json.loads(body)["data"]["session"]["slug"], token)


def _processes(ledger: Ledger, workers: int) -> list[int]:
    """The facade's processes: the one that was started, and its children."""
    pid = ledger.pid("facade")
    if pid is None:
        raise Failure("the facade has ended")
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    if workers > 1 and len(children) < workers:
        raise Failure(f"the facade has {len(children)} workers instead of {workers}")
    return [pid, *children]


async def _soak(load: soak_load.Load, memories: list[Memory], connections: int, seconds: float) -> float:
    """Load it for so long; how long it was."""
    began = time.monotonic()
    running = asyncio.create_task(load.run(connections))
    told = 0.0
    while (passed := time.monotonic() - began) < seconds:
        for memory in memories:
            memory.note(passed)
        if passed - told >= 30:
            told = passed
            sizes = ", ".join(f"{memory.resident[-1] / KIB / KIB:.1f}" for memory in memories)
            say(f"{load.statuses.total() / passed:,.0f} requests/s, {sizes} MiB")
        await asyncio.sleep(1)
    load.stopping = True
    await running
    return time.monotonic() - began


def _report(load: soak_load.Load, memories: list[Memory], took: float) -> int:
    print(f"{load.statuses.total():,} requests in {took:.0f} s, {load.statuses.total() / took:,.0f} each second")
    print("answers: " + ", ".join(f"{status or 'lost'} {count:,}" for status, count in sorted(load.statuses.items())))
    since = WARM_UP * took
    bounded = True
    titles = "".join(f"{title:>9s}" for title in ("process", "first", "warm", "most", "last"))
    print(f"\n{titles}   MiB; growth and slope after {since:.0f} s")
    for memory in memories:
        warm, last = memory.low(since)[0][1], memory.low(since)[-1][1]
        growth, slope = memory.growth(since), memory.bytes_per_minute(since)
        good = growth <= GROWTH_MAX_BYTES and slope <= SLOPE_MAX
        bounded = bounded and good
        sizes = "".join(f"{size / KIB / KIB:9.1f}" for size in (memory.resident[0], warm, max(memory.resident), last))
        print(
            f"{memory.pid:9d}{sizes}   {growth / KIB:+,.0f} KiB, {slope / KIB:+,.1f} KiB a minute: "
            f"{'bounded' if good else 'NOT BOUNDED'}"
        )
    broken = load.lost + sum(count for status, count in load.statuses.items() if status >= 500)
    if broken:
        print(f"\n{broken} answers were lost or were the facade's own fault")
    return 0 if bounded and not broken else 1


if __name__ == "__main__":
    try:
        sys.exit(uvloop.run(main()))
    except Failure as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
