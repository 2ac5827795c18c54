"""Drills: seven users who create and stop at once, again and again; no GPU is given twice and nothing grows.

MEDFORGE_CHURN_ROUNDS says how many sessions each of them has. After each chapter of rounds the host is looked at, and what
has ended is unmounted: zfs-fuse mounts no more than 1000 datasets. Nothing of it is destroyed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from medforged.client import DaemonClient
from medforged.contract.methods import gpus_list
from medforged.contract.sessions import SessionStatus
from tests.fakes.daemon import fake_daemon, make_session
from tests.fixtures.figures import Figure
from tests.host.drill_daemon import ACTIVE, DaemonMaker, DrillDaemon
from tests.host.drills import Footprint, Ground, Watcher, agrees, every_session, ground_of
from tests.host.installation import until
from tests.host.zfs_pool import zfs

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.drill_fixtures"]

_USERS = 7
_ROUNDS = int(os.environ.get("MEDFORGE_CHURN_ROUNDS", "8"))
_WARM_UP_ROUNDS = 2
_CHAPTER_ROUNDS = 20
# Pools of threads and connections grow up to their limit whenever all in them are busy; a leak grows with the sessions.
_ELASTIC = 8


@dataclass
class Times:
    """Seconds: from the request to a session that runs, and from the wish to stop to its end."""

    create: list[float] = field(default_factory=list)
    stop: list[float] = field(default_factory=list)


@pytest.mark.timeout(120 + 20 * _ROUNDS)
async def test_seven_users_create_and_stop_at_once(make_daemon: DaemonMaker, figure: Figure) -> None:
    # One of its own: what it puts away would be missed by other drills.
    daemon = make_daemon()
    await daemon.start()
    ground = ground_of(daemon)
    users = [uuid4() for _ in range(_USERS)]
    times = Times()
    async with Watcher(daemon.client).following() as watcher:
        await _all(daemon, users, watcher, Times(), _WARM_UP_ROUNDS)
        await agrees(ground)
        ground = await _put_away(ground)
        before = Footprint.of(daemon.pid)
        began = time.monotonic()
        for done in range(0, _ROUNDS, _CHAPTER_ROUNDS):
            await _all(daemon, users, watcher, times, min(_CHAPTER_ROUNDS, _ROUNDS - done))
            await agrees(ground)
            await _nothing_unexplained(ground)
            ground = await _put_away(ground)
            assert watcher.doubled == []
        figure("churn: all rounds", time.monotonic() - began)
        # Every use of a GPU was seen, or `doubled` says nothing.
        assert watcher.used.total() == _USERS * (_WARM_UP_ROUNDS + _ROUNDS)
        assert len(watcher.used) == _USERS
    figure("churn: create", times.create)
    figure("churn: stop", times.stop)

    made = [session async for session in every_session(daemon.client)]
    assert len(made) == _USERS * (_WARM_UP_ROUNDS + _ROUNDS)
    assert {session.status for session in made} == {SessionStatus.STOPPED}
    assert await daemon.sessions(*ACTIVE) == []
    gpus = (await daemon.client.call(gpus_list, gpus_list.params())).gpus
    assert [gpu.session_id for gpu in gpus] == [None] * _USERS
    await _as_small_as(before, daemon, figure)


async def _all(daemon: DrillDaemon, users: list[UUID], watcher: Watcher, times: Times, rounds: int) -> None:
    """Nobody waits for the others: creates of some meet stops of others. There is a GPU for each, so none may fail."""

    async def one(user: UUID) -> None:
        for _ in range(rounds):
            began = time.monotonic()
            session = await daemon.create(user)
            times.create.append(time.monotonic() - began)
            began = time.monotonic()
            await daemon.ask_to_stop(session)
            times.stop.append(await watcher.reached(session, SessionStatus.STOPPED, SessionStatus.ERROR) - began)

    async with asyncio.TaskGroup() as group:
        for user in users:
            group.create_task(one(user))


async def _put_away(ground: Ground) -> Ground:
    """Unmount what has ended. What is returned does not look for these mounts any more."""
    sessions = [session async for session in every_session(ground.client)]
    for session in sessions:
        if session.id not in ground.before:
            await asyncio.to_thread(zfs, "unmount", session.workspace_zfs)
    return replace(ground, before=frozenset(session.id for session in sessions))


async def _nothing_unexplained(ground: Ground) -> None:
    """Every dataset of a session has its record, and every record of a session has its one snapshot."""
    listed = ground.run("zfs", "list", "-H", "-r", "-t", "filesystem,snapshot", "-o", "name", ground.root).split()
    sessions = {session.workspace_zfs async for session in every_session(ground.client)}
    depth = ground.root.count("/") + 2
    assert {name for name in listed if "@" not in name and name.count("/") == depth} == sessions
    kept = [name.partition("@")[0] for name in listed if "@" in name]
    assert sorted(kept) == sorted(sessions)


async def _as_small_as(before: Footprint, daemon: DrillDaemon, figure: Figure) -> None:
    async def is_so() -> bool:
        return not _has_grown(before, Footprint.of(daemon.pid))

    try:
        await until(is_so, 30)
    except TimeoutError:
        pytest.fail(f"it has grown from {before} to {Footprint.of(daemon.pid)}")
    now = Footprint.of(daemon.pid)
    figure("churn: open files more", now.files - before.files, "")
    figure("churn: threads more", now.threads - before.threads, "")
    figure("churn: memory more", (now.memory - before.memory) / 1024**2, "MiB")


def _has_grown(before: Footprint, now: Footprint) -> bool:
    return now.files > before.files + _ELASTIC or now.threads > before.threads + _ELASTIC


async def test_a_gpu_given_twice_would_be_seen(tmp_path: Path) -> None:
    async with (
        fake_daemon(tmp_path / "sock", gpu_count=1) as fake,
        DaemonClient(fake.socket) as client,
        Watcher(client).following() as watcher,
    ):
        first, second = make_session(gpu_id=0), make_session(gpu_id=0)
        await fake.put(first)
        await fake.put(second)
        await watcher.reached(second, SessionStatus.RUNNING)
    assert watcher.doubled == [f"GPU 0: {first.slug} and {second.slug}"]


async def test_what_is_left_would_be_seen(daemon: DrillDaemon) -> None:
    ground = ground_of(daemon)
    session = await daemon.end(await daemon.create())
    await _nothing_unexplained(ground)
    dataset, snapshot = f"{ground.root}/{session.user_id}/left", f"{session.workspace_zfs}@left"
    for make, left in ((("create", "-o", "mountpoint=none"), dataset), (("snapshot",), snapshot)):
        zfs(*make, left)
        try:
            with pytest.raises(AssertionError):
                await _nothing_unexplained(ground)
        finally:
            zfs("destroy", left)
    await _nothing_unexplained(ground)


def test_growth_would_be_seen() -> None:
    before = Footprint.of(os.getpid())
    with contextlib.ExitStack() as stack:
        for _ in range(_ELASTIC + 1):
            stack.enter_context(Path(os.devnull).open())
        assert _has_grown(before, Footprint.of(os.getpid()))
    assert not _has_grown(before, Footprint.of(os.getpid()))
