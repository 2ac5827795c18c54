"""Records and host made to agree: the table of states, restarts of the daemon, and what recovery never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from medforged.adapters.clock import SystemClock
from medforged.domain.containers import ContainerState
from medforged.domain.errors import ContainerUnavailable, StateError
from medforged.domain.sessions import Session, SessionStatus
from medforged.ports.state import SessionChange
from medforged.services.journal import Journal, RecoveryMode
from medforged.services.recovery import RecoveryLoop
from tests.integration.services.rig import Rig, open_rig

pytestmark = pytest.mark.integration


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as opened:
        yield opened


async def interrupted(rig: Rig, session: Session) -> None:
    """As if the daemon had been killed between start and readiness."""
    import sqlite3

    raw = sqlite3.connect(rig.state._engine.url.database or "")
    with raw:
        raw.execute(
            "UPDATE sessions SET status = 'starting', container_id = NULL, started_at = NULL WHERE id = ?",
            (str(session.id),),
        )
    raw.close()


async def test_a_running_session_is_left_alone(rig: Rig) -> None:
    session = await rig.create()
    assert (await rig.reconciliation.run(RecoveryMode.POLL)).updated == 0
    assert await rig.state.session(session.id) == session


@pytest.mark.parametrize("status", [SessionStatus.RUNNING, SessionStatus.STARTING])
@pytest.mark.parametrize(
    ("disturb", "message"),
    [("die", "container exited unexpectedly"), ("vanish", "container missing")],
)
async def test_a_dead_container_is_buried_with_a_snapshot(
    rig: Rig, status: SessionStatus, disturb: str, message: str
) -> None:
    session = await rig.create()
    if status is SessionStatus.STARTING:
        await interrupted(rig, session)
    getattr(rig.containers, disturb)(session.container_name)
    assert (await rig.reconciliation.run(RecoveryMode.POLL)).updated == 1
    ended = await rig.state.session(session.id)
    assert (ended.status, ended.error_message) == (SessionStatus.ERROR, message)
    (snapshot,) = await rig.workspaces.snapshots(session.workspace_key)
    assert snapshot.name.startswith("death-")
    assert await rig.containers.containers() == ()
    assert await rig.state.gpu_holders() == {}


async def test_a_daemon_killed_while_starting_finds_the_session_running(rig: Rig) -> None:
    session = await rig.create()
    await interrupted(rig, session)
    assert (await rig.reconciliation.run(RecoveryMode.STARTUP)).updated == 1
    found = await rig.state.session(session.id)
    assert (found.status, found.container_id) == (SessionStatus.RUNNING, session.container_id)
    assert found.started_at is not None


async def test_running_still_means_ready_after_a_restart(rig: Rig) -> None:
    session = await rig.create()
    await interrupted(rig, session)
    rig.readiness.fail()
    await rig.reconciliation.run(RecoveryMode.STARTUP)
    assert (await rig.state.session(session.id)).status is not SessionStatus.RUNNING
    await rig.reconciliation.run(RecoveryMode.POLL)
    assert (await rig.state.session(session.id)).status is SessionStatus.ERROR


async def test_a_stop_goes_on_from_where_it_was_interrupted(rig: Rig) -> None:
    session = await rig.create()
    await rig.state.change(session.id, {SessionStatus.RUNNING}, SessionChange(status=SessionStatus.STOPPING))
    assert (await rig.reconciliation.run(RecoveryMode.STARTUP)).updated == 1
    assert (await rig.state.session(session.id)).status is SessionStatus.STOPPED
    assert len(await rig.workspaces.snapshots(session.workspace_key)) == 1


async def test_an_engine_that_does_not_answer_ends_no_session(rig: Rig) -> None:
    session = await rig.create()
    rig.containers.begin_outage()
    with pytest.raises(ContainerUnavailable):
        await rig.reconciliation.run(RecoveryMode.POLL)
    assert (await rig.state.session(session.id)).status is SessionStatus.RUNNING
    rig.containers.end_outage()
    assert (await rig.reconciliation.run(RecoveryMode.POLL)).updated == 0


async def test_one_sessions_failure_does_not_stop_the_others(rig: Rig) -> None:
    first, second = await rig.create(), await rig.create()
    rig.containers.die(first.container_name)
    rig.containers.die(second.container_name)
    rig.containers.fail("remove", "the engine is busy")
    await rig.reconciliation.run(RecoveryMode.POLL)
    await rig.reconciliation.run(RecoveryMode.POLL)
    for session in (first, second):
        assert (await rig.state.session(session.id)).status is SessionStatus.ERROR
        assert len(await rig.workspaces.snapshots(session.workspace_key)) == 1


async def test_containers_of_ended_sessions_are_removed_and_orphans_are_not(rig: Rig) -> None:
    session = await rig.create()
    orphan = await rig.create()
    import sqlite3

    raw = sqlite3.connect(rig.state._engine.url.database or "")
    with raw:
        raw.execute("UPDATE sessions SET status = 'error' WHERE id = ?", (str(session.id),))
        raw.execute("DELETE FROM sessions WHERE id = ?", (str(orphan.id),))
    raw.close()
    await rig.reconciliation.run(RecoveryMode.POLL)
    assert [info.name for info in await rig.containers.containers()] == [orphan.container_name]
    assert await rig.workspaces.exists(session.workspace_key)
    assert await rig.workspaces.exists(orphan.workspace_key)


async def test_the_loop_backs_off_after_failures_and_recovers(rig: Rig) -> None:
    loop = RecoveryLoop(rig.reconciliation, rig.clock, Journal(), 30, 100)
    assert not loop.alive
    assert loop.problem is not None
    import asyncio

    rig.containers.begin_outage()
    task = asyncio.ensure_future(loop.run())

    async def slept(count: int) -> None:
        async with asyncio.timeout(10):
            while len(rig.clock.slept) < count:  # noqa: ASYNC110 - the loop under test has no event to wait for
                await asyncio.sleep(0)

    await slept(4)
    assert rig.clock.slept[:4] == [60, 100, 100, 100]
    assert loop.alive
    assert "does not answer" in (loop.problem or "")
    rig.containers.end_outage()
    await slept(len(rig.clock.slept) + 2)
    assert rig.clock.slept[-1] == 30
    assert loop.problem is None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not loop.alive


async def test_a_daemon_restarted_over_the_same_host_takes_over(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as before:
        session = await before.create(uuid4())
        containers, workspaces = before.containers, before.workspaces
    async with open_rig(tmp_path, containers=containers, workspaces=workspaces) as after:
        assert (await after.reconciliation.run(RecoveryMode.STARTUP)).updated == 0
        assert (await after.state.session(session.id)).status is SessionStatus.RUNNING
        assert (await after.containers.inspect(session.container_name)).state is ContainerState.RUNNING
        await after.ending.request_stop(session.id)
        await after.settle()
        assert (await after.state.session(session.id)).status is SessionStatus.STOPPED


async def test_a_failed_pass_waits_no_longer_than_what_failed_it(rig: Rig) -> None:
    loop = RecoveryLoop(rig.reconciliation, SystemClock(), Journal(), 3600, 3600)
    rig.containers.begin_outage()
    task = asyncio.ensure_future(loop.run())
    async with asyncio.timeout(20):
        while "does not answer" not in (loop.problem or ""):  # noqa: ASYNC110 - the loop has no event to wait for
            await asyncio.sleep(0.001)
        rig.containers.end_outage()
        # Another part that is well says nothing about this one.
        loop.answers(StateError)
        assert loop.problem is not None
        loop.answers(ContainerUnavailable)
        while loop.problem is not None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
