"""Owns `ops/bench proxy`: what `session-proxy` costs, next to a bare handler of aiohttp that returns the same bytes.

    direct   facade and bare handler over TCP on loopback, for each number of workers and of connections
    flat     a facade with few sessions and cookies next to one with 10,000 sessions and 100,000 cookies
    caddy    a session's host through the product's Caddyfile, with the facade behind it and with the bare handler; the
             session itself is an empty answer of Caddy's own
    --requests N   so many requests through Caddy and the facade, each answer looked at

Both sides are up at the same time and are asked in turns, so that a slow moment of the host hits both. Throughput and
p99 are compared round by round, and the median of that is the result. Processor time is that of the side alone and
hardly depends on what else the host does. `gen` is how busy the generator was: near 1.0 it is what was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from common import Failure, fail, say
from proxy_load import Run, load, median, ratio, write_list
from proxy_sides import PATH, Side, a_bare_handler, a_caddy, a_facade, free_port, headers_of
from proxy_world import Visitors, fill

_PARTS = ("direct", "flat", "caddy")
_SMALL, _LARGE = (10, 100), (10_000, 100_000)


async def main() -> None:
    parser = argparse.ArgumentParser(
        prog="ops/bench proxy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=_PARTS, action="append", help="these parts alone; may be repeated")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count, after one that warms up (default 7)")
    parser.add_argument("--seconds", type=int, default=3, help="of each run (default 3)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64], metavar="N")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--sessions", type=int, default=100, help="that run, except for `flat` (default 100)")
    parser.add_argument("--cookies", type=int, default=1000, help="that are valid, except for `flat` (default 1000)")
    parser.add_argument(
        "--requests", type=int, default=0, metavar="N", help="count the answers of so many through Caddy"
    )
    parser.add_argument("--count-seconds", type=int, default=20, help="of each run with `--requests` (default 20)")
    options = parser.parse_args()
    parts = options.only or ([] if options.requests else list(_PARTS))
    if "caddy" in parts and options.only is None and shutil.which("caddy") is None:
        say("caddy is left out: it is not installed")
        parts.remove("caddy")
    with tempfile.TemporaryDirectory(prefix="medforge-bench-") as name:
        bench = Bench(Path(name), options.rounds, options.seconds, options.connections)
        if {"direct", "caddy"} & set(parts) or options.requests:
            visitors = await bench.visitors(options.sessions, options.cookies)
            for workers in options.workers:
                if "direct" in parts:
                    await bench.direct(visitors, workers)
            for workers in options.workers:
                if "caddy" in parts:
                    await bench.through_caddy(visitors, workers)
            if options.requests:
                await bench.count(visitors, max(options.workers), options.requests, options.count_seconds)
        if "flat" in parts:
            await bench.flat()


class Bench:
    """One run of the benchmark, in a directory of its own."""

    def __init__(self, directory: Path, rounds: int, seconds: int, connections: Sequence[int]) -> None:
        self._directory = directory
        self._rounds = rounds
        self._seconds = seconds
        self._connections = connections

    async def visitors(self, sessions: int, cookies: int) -> Visitors:
        say(f"filling a database with {sessions} people and {cookies} logins")
        home = self._home(sessions)
        home.mkdir()
        return await fill(home, sessions, cookies)

    async def direct(self, visitors: Visitors, workers: int) -> None:
        home = self._home(len(visitors.sessions))
        requests = write_list(home / "requests", visitors, 20_000)
        async with AsyncExitStack() as stack:
            here, there = (f"127.0.0.1:{free_port()}" for _ in range(2))
            facade = await stack.enter_async_context(a_facade(home, visitors, workers, here))
            headers = await headers_of(here, visitors)
            bare = await stack.enter_async_context(a_bare_handler(home, headers, workers, there))
            if await headers_of(there, visitors) != headers:
                raise Failure("the bare handler does not answer as the facade does")
            for connections in self._connections:
                title = f"direct: {_number(workers, 'worker')}, {_number(connections, 'connection')}"
                await self._compare(title, facade, bare, requests, PATH, connections, (0.90, 1.2))

    async def through_caddy(self, visitors: Visitors, workers: int) -> None:
        home = self._home(len(visitors.sessions))
        # The bare handler names one session only.
        slug, _ = visitors.tokens[0]
        of_one = Visitors(visitors.sessions, tuple(one for one in visitors.tokens if one[0] == slug))
        requests = write_list(home / "requests-of-one", of_one, 20_000)
        async with AsyncExitStack() as stack:
            here, there = (str(home / f"{name}-{workers}.sock") for name in ("facade", "bare"))
            facade = await stack.enter_async_context(a_facade(home, visitors, workers, here))
            bare = await stack.enter_async_context(
                a_bare_handler(home, await headers_of(here, visitors), workers, there)
            )
            ours, floor = [
                await stack.enter_async_context(
                    a_caddy(home, f"{side.name}-{workers}", side, f"127.0.0.1:{free_port()}", path)
                )
                for side, path in ((facade, here), (bare, there))
            ]
            for connections in self._connections:
                title = f"caddy: {_number(workers, 'worker')}, {_number(connections, 'connection')}"
                await self._compare(title, ours, floor, requests, "/", connections, (0.95, None))

    async def flat(self) -> None:
        async with AsyncExitStack() as stack:
            sides, lists = [], []
            for sessions, cookies in (_LARGE, _SMALL):
                visitors = await self.visitors(sessions, cookies)
                say("starting a facade and showing it every cookie")
                home, at = self._home(sessions), f"127.0.0.1:{free_port()}"
                sides.append(await stack.enter_async_context(a_facade(home, visitors, 1, at)))
                lists.append(write_list(home / "requests", visitors, len(visitors.tokens)))
                print(f"{sessions} sessions, {cookies} cookies: {_resident(sides[-1]):.0f} MiB resident", flush=True)
            large, small = sides
            await self._compare(
                "flat: 10,000 sessions and 100,000 cookies (ours) next to 10 and 100 (floor), 64 connections",
                Side("large", large.url, large.pids),
                Side("small", small.url, small.pids),
                lists[0],
                PATH,
                64,
                (0.90, 1.2),
                floor_requests=lists[1],
            )

    async def count(self, visitors: Visitors, workers: int, wanted: int, seconds: int) -> None:
        home = self._home(len(visitors.sessions))
        requests = write_list(home / "requests", visitors, 20_000)
        path = str(home / f"facade-count-{workers}.sock")
        seen = wrong = 0
        statuses: Counter[str] = Counter()
        async with AsyncExitStack() as stack:
            facade = await stack.enter_async_context(a_facade(home, visitors, workers, path))
            at = f"127.0.0.1:{free_port()}"
            caddy = await stack.enter_async_context(a_caddy(home, f"count-{workers}", facade, at, path))
            while seen < wanted:
                run = await load(caddy, requests, "/", connections=64, seconds=seconds, count=True)
                seen, wrong = seen + run.requests, wrong + run.wrong
                statuses.update(run.statuses)
                say(f"{seen} requests, {wrong} not answered with 200; by status: {dict(statuses)}")
        told = f"requests through Caddy, {_number(workers, 'worker')}: {seen}; not 200: {wrong}; 502: {statuses['502']}"
        print(f"\n{told}")
        if wrong:
            raise Failure(f"{wrong} of {seen} requests were not answered with 200; by status: {dict(statuses)}", 1)

    async def _compare(
        self,
        title: str,
        ours: Side,
        floor: Side,
        requests: Path,
        path: str,
        connections: int,
        targets: tuple[float, float | None],
        floor_requests: Path | None = None,
    ) -> None:
        runs: dict[str, list[Run]] = {ours.name: [], floor.name: []}
        lists = {ours.name: requests, floor.name: floor_requests or requests}
        for number in range(self._rounds + 1):
            for side in (ours, floor) if number % 2 else (floor, ours):
                run = await load(side, lists[side.name], path, connections=connections, seconds=self._seconds)
                if run.wrong or not run.requests:
                    raise Failure(
                        f"{side.name} answered {run.requests} requests in {self._seconds} s and got {run.wrong} wrong; "
                        "where it answered none, let --seconds be longer"
                    )
                if number:
                    runs[side.name].append(run)
        _show(title, runs)
        _judge(runs[ours.name], runs[floor.name], targets)

    def _home(self, sessions: int) -> Path:
        return self._directory / str(sessions)


def _show(title: str, runs: dict[str, list[Run]]) -> None:
    print(f"\n{title}\n{'':18s}{'requests/s':>12s}{'p50 ms':>9s}{'p99 ms':>9s}{'cpu us':>9s}{'gen':>7s}   medians")
    for name, seen in runs.items():
        print(
            f"{name:18s}{median(seen, 'per_second'):12.0f}{median(seen, 'p50_milliseconds'):9.2f}"
            f"{median(seen, 'p99_milliseconds'):9.2f}{median(seen, 'processor_microseconds'):9.1f}"
            f"{median(seen, 'generator_busy'):7.2f}   of {len(seen)}",
            flush=True,
        )


def _judge(ours: list[Run], floor: list[Run], targets: tuple[float, float | None]) -> None:
    throughput, late = ratio(ours, floor, "per_second"), ratio(ours, floor, "p99_milliseconds")
    least, most = targets
    told = f"throughput {throughput:.3f} of the floor ({'at least' if throughput >= least else 'BELOW'} {least:.2f})"
    if most is None:
        told += f", p99 {late:.2f}"
    else:
        told += f", p99 {late:.2f} ({'at most' if late <= most else 'ABOVE'} {most:.1f})"
    print(f"{told}, processor time {ratio(ours, floor, 'processor_microseconds'):.2f}", flush=True)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _resident(side: Side) -> float:
    """MiB of memory, on average of a side's processes."""
    told = [Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0] for pid in side.pids]
    return statistics.mean(int(kibibytes) / 1024 for kibibytes in told)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except Failure as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
