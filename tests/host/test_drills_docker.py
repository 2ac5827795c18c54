"""Drills: Docker itself is killed, ended and started again under sessions that run, start and stop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest

from medforged.client import DaemonError
from medforged.contract.sessions import Session, SessionStatus
from tests.fixtures.figures import Figure
from tests.host.drill_daemon import ENDED, DrillDaemon, gathered
from tests.host.drill_engine import Engine
from tests.host.drills import Watcher, agrees, ground_of
from tests.host.installation import until

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.drill_fixtures"]

# From the moment that Docker answers again.
_SECONDS = 15.0


@pytest.mark.parametrize("end", [Engine.kill, Engine.terminate], ids=["killed", "ended"])
async def test_docker_goes_and_comes_back(daemon: DrillDaemon, figure: Figure, end: Callable[[Engine], None]) -> None:
    running = await asyncio.gather(*(daemon.create() for _ in range(4)))
    stopping = running.pop()
    for session in running:
        daemon.inside(session, "sh", "-c", "echo kept > /workspace/note", check=True)
    in_flight = asyncio.gather(daemon.create(), daemon.create(), return_exceptions=True)
    await until(lambda: _starting(daemon, 2))
    await daemon.ask_to_stop(stopping)
    await asyncio.to_thread(end, daemon.engine)

    await until(lambda: _names(daemon, "containers", "events"), 10)
    (refused,) = await gathered(daemon.create())
    assert isinstance(refused, DaemonError)
    for created in await in_flight:
        assert isinstance(created, Session | DaemonError)
    # While it is away the records can be read all the same.
    assert len(await daemon.sessions()) >= 6

    async with Watcher(daemon.client).following() as watcher:
        daemon.engine.start()
        began = time.monotonic()
        took = [await watcher.reached(session, SessionStatus.ERROR) - began for session in running]
        await daemon.ended(stopping)
        await daemon.healthy()
        healthy = time.monotonic() - began
        again = await daemon.create()
    figure(f"Docker {end.__name__}ed and back: sessions in error", took)
    figure(f"Docker {end.__name__}ed and back: healthy", healthy)
    assert max(*took, healthy) <= _SECONDS
    for session in running:
        assert (await daemon.read(session)).error_message in (
            "container exited unexpectedly",
            "container missing",
        )
    assert (await daemon.read(stopping)).status in ENDED
    await daemon.end(again)
    for session in await daemon.sessions(SessionStatus.STARTING, SessionStatus.RUNNING, SessionStatus.STOPPING):
        await daemon.end(session)
    await agrees(ground_of(daemon))


async def test_sessions_survive_a_docker_that_lets_them(daemon: DrillDaemon, figure: Figure) -> None:
    settings = daemon.engine.directory / "daemon.json"
    try:
        settings.write_text(json.dumps({"live-restore": True}))
        daemon.engine.terminate()
        daemon.engine.start()
        await daemon.healthy()
        sessions = await asyncio.gather(*(daemon.create() for _ in range(3)))
        processes = [daemon.process_of(session) for session in sessions]
        daemon.engine.kill()
        await until(lambda: _names(daemon, "containers", "events"), 10)
        daemon.engine.start()
        began = time.monotonic()
        await daemon.healthy()
        figure("Docker killed and back, containers kept: healthy", time.monotonic() - began)
        await agrees(ground_of(daemon))
        assert [daemon.process_of(session) for session in sessions] == processes
        assert {session.id for session in await daemon.sessions(SessionStatus.RUNNING)} == {one.id for one in sessions}
        await asyncio.gather(*(daemon.end(session) for session in sessions))
        await agrees(ground_of(daemon))
    finally:
        settings.write_text("{}")
        daemon.engine.terminate()
        daemon.engine.start()


async def _starting(daemon: DrillDaemon, number: int) -> bool:
    return len(await daemon.sessions(SessionStatus.STARTING)) == number


async def _names(daemon: DrillDaemon, *parts: str) -> bool:
    return set(parts) <= set(await daemon.problems())
