"""Following the engine's events: a death is dealt with without any poll, and a lost stream is made up for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from medforged.domain.sessions import SessionStatus
from medforged.services.events import EventLoop
from medforged.services.journal import Journal
from tests.integration.services.rig import Rig, open_rig

pytestmark = pytest.mark.integration


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as opened:
        yield opened


@asynccontextmanager
async def following(rig: Rig, relists: list[str]) -> AsyncIterator[EventLoop]:
    from medforged.services.records import Records

    loop = EventLoop(
        containers=rig.containers,
        records=Records(rig.state, rig.feed),
        settling=rig.settling,
        relist=lambda: relists.append("sessions"),
        network_changed=lambda: relists.append("network"),
        clock=rig.clock,
        journal=Journal(),
    )
    task = asyncio.create_task(loop.run())
    try:
        await until(lambda: _is(loop.problem is None))
        yield loop
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _is(value: bool) -> bool:
    return value


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("disturb", "message"), [("die", "container exited unexpectedly"), ("vanish", "missing")])
async def test_a_death_ends_the_session_without_a_poll(rig: Rig, disturb: str, message: str) -> None:
    session = await rig.create()
    other = await rig.create()
    async with following(rig, []):
        getattr(rig.containers, disturb)(session.container_name)

        async def ended() -> bool:
            return (await rig.state.session(session.id)).status is SessionStatus.ERROR

        await until(ended)
    assert message in ((await rig.state.session(session.id)).error_message or "")
    assert len(await rig.workspaces.snapshots(session.workspace_key)) == 1
    assert (await rig.state.session(other.id)).status is SessionStatus.RUNNING


async def test_every_subscription_and_every_loss_lists_anew(rig: Rig) -> None:
    relists: list[str] = []
    async with following(rig, relists) as loop:
        assert relists.count("sessions") == 1
        rig.containers.begin_outage()
        await until(lambda: _is(loop.problem is not None))
        assert relists.count("sessions") == 2
        rig.containers.end_outage()
        await until(lambda: _is(loop.problem is None))
        assert relists.count("sessions") == 3


async def test_a_death_during_a_create_fails_that_create(rig: Rig) -> None:
    async with following(rig, []):
        stuck = rig.containers.hang("inspect")
        release = asyncio.Event()

        async def never(*_: object) -> None:
            await release.wait()

        rig.readiness.wait = never  # type: ignore[method-assign,assignment]  # holds a create at its longest step
        creating = asyncio.ensure_future(rig.create())
        await stuck.arrived()
        (session,) = await rig.state.active()
        rig.containers.die(session.container_name)
        stuck.release()
        with pytest.raises(Exception, match="before its IDE answered"):
            await creating
        await rig.settle()
    ended = await rig.state.session(session.id)
    assert ended.status is SessionStatus.ERROR
    assert (ended.error_message or "").startswith("create failed: ")
