"""Drills: the clock jumps, by a day and by ten years, forwards and backwards, while sessions start, end and die."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from medforged.contract.sessions import Session, SessionStatus
from tests.fixtures.compiled import shared_library
from tests.host.drill_daemon import DaemonMaker, DrillDaemon
from tests.host.drill_engine import Engine
from tests.host.drills import agrees, every_session, ground_of
from tests.host.installation import ROOT, until
from tests.host.zfs_pool import zfs

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.drill_fixtures"]

_SOURCE = ROOT / "tests" / "fixtures" / "clock" / "clock.c"
_DAY = 24 * 60 * 60
_JUMPS = (_DAY, -_DAY, 3650 * _DAY, -3650 * _DAY)
# How wrong a time may be that is told to be of now.
_SLACK = timedelta(seconds=60)


@dataclass(frozen=True)
class Clock:
    """The daemon's alone: the rest of the host knows what time it is."""

    file: Path

    def jump(self, seconds: int) -> None:
        """From the real time; what the clock said before does not count."""
        # In place: the daemon has mapped the file.
        with self.file.open("r+b") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


@pytest.fixture
def clock(engine: Engine) -> Clock:
    made = Clock(engine.directory / "clock")
    made.file.write_bytes(bytes(8))
    return made


@pytest.fixture
def library(pytestconfig: pytest.Config) -> Path:
    """What adds the clock's seconds to the daemon's time of day."""
    return shared_library("libclock.so", [_SOURCE], pytestconfig.rootpath / ".pytest_cache" / "clock")


@pytest.fixture
async def daemon(clock: Clock, library: Path, make_daemon: DaemonMaker) -> AsyncIterator[DrillDaemon]:
    made: DrillDaemon = make_daemon(
        settings={"sessions": {"poll_interval_seconds": 2.0}},
        environment={"LD_PRELOAD": str(library), "MEDFORGE_CLOCK": str(clock.file)},
    )
    await made.start()
    yield made
    # Its end must not wait for a day to pass either.
    clock.jump(0)


async def test_the_clock_jumps(daemon: DrillDaemon, clock: Clock) -> None:
    ground = ground_of(daemon)
    steady = await daemon.create()
    process = daemon.process_of(steady)
    sessions: list[Session] = []
    for jump in _JUMPS:
        clock.jump(0)
        stopped, dead = await asyncio.gather(daemon.create(), daemon.create())
        # While one starts, one ends and one dies.
        creating = asyncio.create_task(daemon.create())
        await until(lambda: _is_starting(daemon))
        await daemon.ask_to_stop(stopped)
        os.kill(daemon.process_of(dead), signal.SIGKILL)
        clock.jump(jump)
        created = await creating
        # And one comes and goes in the other time.
        later = await daemon.create()
        assert abs(datetime.now(UTC) + timedelta(seconds=jump) - later.created_at) < _SLACK, "the clock has not jumped"
        assert (await daemon.ended(dead)).status is SessionStatus.ERROR
        for session in (stopped, created, later):
            await daemon.ask_to_stop(session)
            assert (await daemon.ended(session)).status is SessionStatus.STOPPED
        sessions += (stopped, dead, created, later)
        # Nothing ends for it, and what looks at the host now and then does so again soon.
        assert (await daemon.read(steady)).status is SessionStatus.RUNNING
        assert daemon.process_of(steady) == process
        await agrees(ground)
    clock.jump(0)
    await daemon.end(steady)
    await agrees(ground)
    await _is_sane(daemon, {session.id for session in [steady, *sessions]})


async def _is_sane(daemon: DrillDaemon, ids: set[object]) -> None:
    """Everything is listed, once and in order of its time, and has one snapshot with a name of its own."""
    listed = [session async for session in every_session(daemon.client)]
    assert [session.id for session in listed].count(listed[0].id) == 1
    assert {session.id for session in listed} == ids
    assert len(listed) == len(ids)
    assert listed == sorted(listed, key=lambda session: session.created_at, reverse=True)
    names = zfs("list", "-H", "-r", "-t", "snapshot", "-o", "name", daemon.pool).split()
    kept = [name for name in names if name.startswith(f"{daemon.pool}/{daemon.root}/")]
    assert len(kept) == len(set(kept)) == len(ids)
    assert all(re.fullmatch(r"(stop|death)-\d{12,13}", name.partition("@")[2]) for name in kept)


async def _is_starting(daemon: DrillDaemon) -> bool:
    return bool(await daemon.sessions(SessionStatus.STARTING))
