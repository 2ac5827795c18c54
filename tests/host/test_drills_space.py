"""Drills: the pool is full when a session starts, while it works, and when it ends."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator

import pytest

from medforged.client import DaemonError
from medforged.contract.errors import ErrorCode
from medforged.contract.sessions import Session, SessionStatus
from tests.fixtures.figures import Figure
from tests.host.drill_daemon import DaemonMaker, DrillDaemon, gathered
from tests.host.drills import agrees, ground_of
from tests.host.installation import until
from tests.host.zfs_pool import scratch_pool

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.drill_fixtures"]

_MIB = 1024 * 1024
_FILL = "dd if=/dev/urandom of=/workspace/big bs=1M count=1000"


@pytest.fixture
async def daemon(make_daemon: DaemonMaker) -> AsyncIterator[DrillDaemon]:
    """One whose workspaces have no quota and share 64 MiB."""
    with scratch_pool(prefix="mfdrill", size_bytes=64 * _MIB) as small:
        made = make_daemon(pool=small)
        await made.start()
        yield made
        await made.clear()


async def test_the_pool_is_full(daemon: DrillDaemon, figure: Figure) -> None:
    ground = ground_of(daemon)
    writer, neighbour = await asyncio.gather(daemon.create(), daemon.create())
    daemon.inside(neighbour, "sh", "-c", "echo kept > /workspace/note", check=True)
    filled = await asyncio.to_thread(daemon.inside, writer, "sh", "-c", _FILL)
    assert "No space left on device" in filled.stderr
    content = _digest(daemon, writer)

    # Nobody's session ends for it, and what is there can be read.
    assert {session.id for session in await daemon.sessions(SessionStatus.RUNNING)} == {writer.id, neighbour.id}
    assert daemon.inside(neighbour, "cat", "/workspace/note").stdout == "kept\n"

    # A create has no room for its dataset, and is taken back.
    (refused,) = await gathered(daemon.create())
    assert isinstance(refused, DaemonError)
    assert refused.code is ErrorCode.CREATE_FAILED
    (failed,) = await daemon.sessions(SessionStatus.ERROR)
    assert re.match("create failed: cannot create workspace .*out of space; free space", failed.error_message or "")
    await agrees(ground)

    # An end is an end. ZFS has no room for the snapshot either, which the record says; the files are as they were.
    began = time.monotonic()
    ended = await daemon.end(writer)
    figure("stop with a full pool", time.monotonic() - began)
    assert ended.status is SessionStatus.ERROR
    assert re.match("snapshot failed: .*out of space; free space", ended.error_message or "")
    assert _digest(daemon, ended) == content
    await agrees(ground)

    # With room again, everything goes on as before.
    (daemon.workspace(ended) / "big").unlink()
    again = await _patiently(daemon)
    assert (await daemon.end(again)).status is SessionStatus.STOPPED
    assert (await daemon.end(neighbour)).status is SessionStatus.STOPPED
    assert (daemon.workspace(neighbour) / "note").read_text() == "kept\n"
    await agrees(ground)


def _digest(daemon: DrillDaemon, session: Session) -> str:
    with (daemon.workspace(session) / "big").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _patiently(daemon: DrillDaemon) -> Session:
    """A session. ZFS gives room back some seconds after a file has gone."""
    made: list[Session] = []

    async def can_be_made() -> bool:
        (answer,) = await gathered(daemon.create())
        made.extend([answer] if isinstance(answer, Session) else [])
        return bool(made)

    await until(can_be_made, 30)
    return made[0]
