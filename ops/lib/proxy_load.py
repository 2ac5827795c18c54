"""Owns the load of `ops/bench proxy`: wrk with a list of hosts and cookies, and the figures of a run."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, Failure
from proxy_sides import Side
from proxy_world import Visitors, host_of

_SCRIPT = ROOT / "ops" / "lib" / "proxy.lua"


@dataclass(frozen=True)
class Run:
    """What one run of the generator saw."""

    requests: int
    per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    processor_microseconds: float
    """Of the side, for one request."""
    generator_busy: float
    """How much of its one core the generator used; near 1 it was the bottleneck."""
    wrong: int
    """Answers of other statuses than 2xx and 3xx, and of none."""
    statuses: dict[str, int]
    """How many answers had each status, where that was counted."""


def write_list(path: Path, visitors: Visitors, limit: int) -> Path:
    """The requests, one a line, spread over all sessions and cookies."""
    lines = [f"{host_of(slug)}\tmedforge_session={token}" for slug, token in visitors.tokens[:limit]]
    path.write_text("\n".join(lines) + "\n")
    return path


async def load(side: Side, requests: Path, path: str, *, connections: int, seconds: int, count: bool = False) -> Run:
    """Ask for so long; with `count` every status is looked at. Raises Failure."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise Failure("wrk is missing; install its package (apt-get install wrk)")
    argv = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", _SCRIPT, side.url + path]
    before, spent = side.seconds(), _children_seconds()
    process = await asyncio.create_subprocess_exec(
        *map(str, [*argv, "--", requests, path, *(["count"] if count else [])]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    used = side.seconds() - before
    try:
        figures = json.loads(told.decode().strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise Failure(f"wrk does not tell its figures: {told.decode(errors='replace').strip()[-300:]}") from error
    wall = figures["microseconds"] / 1e6
    answered = max(1, figures["requests"])
    statuses = figures["statuses"]
    return Run(
        requests=figures["requests"],
        per_second=figures["requests"] / wall,
        p50_milliseconds=figures["p50"] / 1000,
        p99_milliseconds=figures["p99"] / 1000,
        processor_microseconds=1e6 * used / answered,
        generator_busy=(_children_seconds() - spent) / wall,
        wrong=max(figures["status"], sum(statuses.values()) - statuses.get("200", 0)) + figures["broken"],
        statuses=statuses,
    )


def median(runs: Iterable[Run], figure: str) -> float:
    return statistics.median(getattr(run, figure) for run in runs)


def ratio(ours: Iterable[Run], floor: Iterable[Run], figure: str) -> float:
    """Round by round, since a slow moment of the host hits both; the median of that."""
    return statistics.median(
        getattr(one, figure) / getattr(other, figure) for one, other in zip(ours, floor, strict=True)
    )


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system
