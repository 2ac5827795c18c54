"""Drills: the daemon's database is on a full disk, on one that has become read-only, or locked by somebody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from medforged.client import DaemonError
from medforged.contract.errors import ErrorCode
from medforged.contract.sessions import Session, SessionStatus
from tests.fixtures.figures import Figure
from tests.host.drill_daemon import DaemonMaker, DrillDaemon, gathered
from tests.host.drill_engine import Engine
from tests.host.drills import agrees, ground_of

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.drill_fixtures"]

_SECONDS = 15.0
_DISK_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Disk:
    """A file system of its own, small, in a file."""

    image: Path
    at: Path

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self.image), str(self.at))

    def unmount(self) -> None:
        _run("umount", str(self.at))

    def fill(self) -> None:
        with (self.at / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(512))

    def empty(self) -> None:
        (self.at / "ballast").unlink()

    def break_down(self) -> None:
        """What ext4 does after an error of the disk: from now on it can only be read."""
        _run("mount", "-o", "remount,abort", str(self.at))

    def repair(self) -> None:
        self.unmount()
        # Who was making a container has the mount in a namespace for a moment; mounted meanwhile, it would be the same
        # broken file system again.
        deadline = time.monotonic() + _SECONDS
        while _run("losetup", "--associated", str(self.image)):
            assert time.monotonic() < deadline, "somebody still has the broken disk"
            time.sleep(0.02)
        # 1: errors were found and corrected.
        assert subprocess.run(["e2fsck", "-fy", self.image], capture_output=True, check=False).returncode in (0, 1)
        self.mount()


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def _disk(directory: Path) -> Iterator[Disk]:
    disk = Disk(directory / "disk.img", directory / "disk")
    with disk.image.open("wb") as file:
        file.truncate(_DISK_BYTES)
    _run("mkfs.ext4", "-q", str(disk.image))
    disk.at.mkdir()
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()
        disk.at.rmdir()
        disk.image.unlink()


@pytest.fixture
def disk(engine: Engine) -> Iterator[Disk]:
    with _disk(engine.directory) as made:
        yield made


@pytest.fixture
async def daemon(disk: Disk, make_daemon: DaemonMaker) -> DrillDaemon:
    """Its records are on the disk. What could not be recorded is tried again in the next poll."""
    made: DrillDaemon = make_daemon(state=disk.at, settings={"sessions": {"poll_interval_seconds": 2.0}})
    await made.start()
    return made


@dataclass(frozen=True)
class Sessions:
    """Two that run: an operator stops one and the other dies while nothing can be written."""

    daemon: DrillDaemon
    wanted: Session
    dead: Session

    async def nothing_can_be_written(self, *reasons: str) -> None:
        """Every call answers, and says why it could not: for one of these reasons."""
        told = tuple(f"cannot write the daemon's database: {reason}; check " for reason in reasons)
        refusals = await gathered(self.daemon.create(), self.daemon.ask_to_stop(self.wanted))
        for refused in refusals:
            assert isinstance(refused, DaemonError)
            assert refused.code is ErrorCode.HOST_FAILED
            assert refused.message.startswith(told)
        os.kill(self.daemon.process_of(self.dead), signal.SIGKILL)
        # Reads go on, and so does the session.
        assert {one.status for one in await self.daemon.sessions()} == {SessionStatus.RUNNING}
        assert self.daemon.inside(self.wanted, "true").returncode == 0

    async def go_on(self) -> float:
        """How long it takes until what has happened meanwhile is recorded."""
        began = time.monotonic()
        ended = await self.daemon.ended(self.dead)
        took = time.monotonic() - began
        assert (ended.status, ended.error_message) == (SessionStatus.ERROR, "container exited unexpectedly")
        assert (await self.daemon.end(self.wanted)).status is SessionStatus.STOPPED
        await self.daemon.end(await self.daemon.create())
        await agrees(ground_of(self.daemon))
        return took


@pytest.fixture
async def sessions(daemon: DrillDaemon) -> Sessions:
    return Sessions(daemon, *await asyncio.gather(daemon.create(), daemon.create()))


async def test_the_disk_is_full(disk: Disk, sessions: Sessions, figure: Figure) -> None:
    disk.fill()
    await sessions.nothing_can_be_written("database or disk is full")
    disk.empty()
    took = await sessions.go_on()
    figure("space again until a death is recorded", took)
    assert took <= _SECONDS


async def test_the_disk_can_only_be_read(disk: Disk, sessions: Sessions, figure: Figure) -> None:
    disk.break_down()
    # A connection that is opened only now is one for reading.
    await sessions.nothing_can_be_written("disk I/O error", "attempt to write a readonly database")
    # Nothing repairs a mounted disk.
    await sessions.daemon.client.close()
    sessions.daemon.stop()
    disk.repair()
    await sessions.daemon.start()
    took = await sessions.go_on()
    figure("repaired and started until a death is recorded", took)
    assert took <= _SECONDS


async def test_somebody_else_has_locked_it(disk: Disk, sessions: Sessions, figure: Figure) -> None:
    with contextlib.closing(sqlite3.connect(disk.at / "medforged.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        # Each writer waits for five seconds, and one after the other.
        await sessions.nothing_can_be_written("database is locked")
        other.execute("ROLLBACK")
    took = await sessions.go_on()
    figure("unlocked until a death is recorded", took)
    assert took <= _SECONDS
