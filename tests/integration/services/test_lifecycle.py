"""Creating and ending sessions: what is made, what is undone, and what a failure at each step leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from medforged.adapters.simulated.workspaces import Moment, Operation
from medforged.domain.containers import ContainerState
from medforged.domain.errors import (
    ContainerUnavailable,
    CreateFailed,
    IsolationError,
    NoGpuAvailable,
    PackNotFound,
    SessionLimitReached,
    SessionNotFound,
    StoppedWhileStarting,
    TierUnavailable,
)
from medforged.domain.isolation import IsolationReport
from medforged.domain.sessions import SessionStatus, Tier
from medforged.ports.state import SessionQuery
from tests.integration.services.rig import Rig, open_rig

pytestmark = pytest.mark.integration


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as opened:
        yield opened


async def nothing_is_left(rig: Rig) -> None:
    assert await rig.containers.containers() == ()
    assert await rig.state.gpu_holders() == {}


async def test_a_created_session_runs_on_its_gpu_with_its_workspace(rig: Rig) -> None:
    user = uuid4()
    session = await rig.create(user)
    assert session.status is SessionStatus.RUNNING
    assert session.started_at is not None
    assert session.started_at >= session.created_at
    seen = await rig.containers.inspect(f"mf-session-{session.slug}")
    assert (seen.state, seen.id, seen.session_id) == (ContainerState.RUNNING, session.container_id, session.id)
    assert await rig.workspaces.exists(session.workspace_key)
    assert session.workspace_zfs == rig.workspaces.locate(session.workspace_key).dataset
    assert await rig.state.gpu_holders() == {session.gpu_id: session.id}


async def test_a_stopped_session_leaves_its_workspace_and_one_snapshot(rig: Rig) -> None:
    session = await rig.create()
    stopping, requested = await rig.ending.request_stop(session.id)
    assert (stopping.status, requested) == (SessionStatus.STOPPING, True)
    await rig.settle()
    ended = await rig.state.session(session.id)
    assert (ended.status, ended.error_message) == (SessionStatus.STOPPED, None)
    assert ended.stopped_at is not None
    (snapshot,) = await rig.workspaces.snapshots(session.workspace_key)
    assert snapshot.name.startswith("stop-")
    await nothing_is_left(rig)


async def test_stopping_is_idempotent_and_terminal_states_stay(rig: Rig) -> None:
    session = await rig.create()
    outcomes = await asyncio.gather(*(rig.ending.request_stop(session.id) for _ in range(10)))
    assert all(requested for _, requested in outcomes)
    await rig.settle()
    ended = await rig.state.session(session.id)
    again, requested = await rig.ending.request_stop(session.id)
    assert (again, requested) == (ended, False)
    assert len(await rig.workspaces.snapshots(session.workspace_key)) == 1
    with pytest.raises(SessionNotFound):
        await rig.ending.request_stop(uuid4())


async def test_refusals_make_nothing(rig: Rig) -> None:
    with pytest.raises(TierUnavailable):
        await rig.create(tier=Tier.PRIVATE)
    with pytest.raises(PackNotFound):
        await rig.create(pack=uuid4())
    user = uuid4()
    await rig.create(user)
    with pytest.raises(SessionLimitReached):
        await rig.create(user)
    await rig.create()
    with pytest.raises(NoGpuAvailable):
        await rig.create()
    assert len(await rig.state.sessions(SessionQuery())) == 2


async def test_no_session_starts_without_isolation(rig: Rig) -> None:
    rig.isolation.fail("the bridge is gone")
    await rig.guard.assert_again()
    with pytest.raises(IsolationError, match="the bridge is gone"):
        await rig.create()
    assert await rig.state.sessions(SessionQuery()) == ()
    rig.isolation.restore()
    await rig.guard.assert_again()
    assert (await rig.create()).status is SessionStatus.RUNNING


async def test_a_leak_that_only_traffic_shows_is_found_by_the_probe(rig: Rig) -> None:
    rig.isolation.leak("sessions reach each other")
    await rig.guard.assert_again()
    assert rig.guard.problem is None, "rules that read back well are all that this looks at"
    await rig.guard.prove()
    assert rig.guard.problem is not None
    with pytest.raises(IsolationError, match="sessions reach each other"):
        await rig.create()
    rig.isolation.restore()
    await rig.guard.assert_again()
    assert rig.guard.problem is None


async def test_a_container_that_starts_while_isolation_is_proven_is_no_leak(rig: Rig) -> None:
    verify = rig.isolation.verify
    found = []

    async def while_starting(*arguments: object) -> IsolationReport:
        report = await verify(*arguments)  # type: ignore[arg-type]  # passed through
        if not found:
            with rig.guard.admitting():
                report = replace(report, holds=False, problems=("port veth1 is not isolated",))
        found.append(report)
        return report

    rig.isolation.verify = while_starting  # type: ignore[method-assign,assignment]  # a moment that cannot be aimed at
    await rig.guard.prove()
    assert [report.holds for report in found] == [False, True]
    assert rig.guard.problem is None


@pytest.mark.parametrize("operation", ["resolve_image", "create", "start"])
async def test_a_container_that_fails_undoes_everything(rig: Rig, operation: str) -> None:
    rig.containers.fail(operation, "no space left on device")
    user = uuid4()
    with pytest.raises(CreateFailed, match="no space left"):
        await rig.create(user)
    (session,) = await rig.state.sessions(SessionQuery(user_id=user))
    assert session.status is SessionStatus.ERROR
    assert session.error_message is not None
    assert session.error_message.startswith("create failed: ")
    assert session.stopped_at is not None
    assert not await rig.workspaces.exists(session.workspace_key)
    await nothing_is_left(rig)
    assert (await rig.create(user)).status is SessionStatus.RUNNING, "the user was still counted as busy"


@pytest.mark.parametrize("moment", list(Moment))
async def test_a_workspace_that_fails_undoes_everything(rig: Rig, moment: Moment) -> None:
    rig.faults.fail(Operation.CREATE, "out of space", moment)
    user = uuid4()
    with pytest.raises(CreateFailed, match="out of space"):
        await rig.create(user)
    (session,) = await rig.state.sessions(SessionQuery(user_id=user))
    assert not await rig.workspaces.exists(session.workspace_key)
    await nothing_is_left(rig)


async def test_an_ide_that_never_answers_undoes_everything(rig: Rig) -> None:
    rig.readiness.fail()
    with pytest.raises(CreateFailed, match="no HTTP answer"):
        await rig.create()
    await nothing_is_left(rig)


async def test_a_defect_undoes_everything_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    class Defect(Exception):
        pass

    async def broken(*_: object) -> None:
        raise Defect

    rig.readiness.wait = broken  # type: ignore[method-assign,assignment]  # a defect has no honest place to be injected
    with pytest.raises(Defect):
        await rig.create()
    (session,) = await rig.state.sessions(SessionQuery())
    assert session.error_message == "create failed: internal error (Defect)"
    await nothing_is_left(rig)


async def test_an_undo_that_fails_is_finished_later_and_the_gpu_waits(rig: Rig) -> None:
    rig.readiness.fail()
    # The undo's, and so many more that the ending flow is still trying when the test looks.
    rig.containers.fail("remove", "the engine is busy", times=200)
    user = uuid4()
    with pytest.raises(CreateFailed):
        await rig.create(user)
    (session,) = await rig.state.sessions(SessionQuery(user_id=user))
    assert session.status is SessionStatus.STOPPING
    assert await rig.state.gpu_holders() == {session.gpu_id: session.id}, "a GPU was free under a running container"
    await rig.settle()
    (session,) = await rig.state.sessions(SessionQuery(user_id=user))
    assert session.status is SessionStatus.ERROR
    assert session.error_message is not None
    assert session.error_message.startswith("create failed: ")
    await nothing_is_left(rig)


async def test_a_stop_while_starting_wins(rig: Rig, tmp_path: Path) -> None:
    waiting, proceed = asyncio.Event(), asyncio.Event()
    answer = rig.readiness.wait

    async def held(*arguments: object) -> None:
        waiting.set()
        await proceed.wait()
        await answer(*arguments)  # type: ignore[arg-type]  # passed through

    rig.readiness.wait = held  # type: ignore[method-assign,assignment]  # holds a create at its longest step
    user = uuid4()
    creating = asyncio.ensure_future(rig.create(user))
    await waiting.wait()
    (session,) = await rig.state.active()
    await rig.ending.request_stop(session.id)
    with pytest.raises(StoppedWhileStarting):
        await creating
    await rig.settle()
    assert (await rig.state.session(session.id)).status is SessionStatus.STOPPED
    await nothing_is_left(rig)


async def test_a_container_that_dies_before_its_ide_answers_fails_at_once(rig: Rig) -> None:
    waiting = asyncio.Event()

    async def never(*_: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    rig.readiness.wait = never  # type: ignore[method-assign,assignment]  # an IDE that hangs
    creating = asyncio.ensure_future(rig.create())
    await waiting.wait()
    (info,) = await rig.containers.containers()
    rig.containers.die(info.name, exit_code=7)
    with pytest.raises(CreateFailed, match="ended with status 7 before its IDE answered"):
        await creating
    await nothing_is_left(rig)


async def test_a_snapshot_that_fails_is_an_error_and_frees_the_gpu(rig: Rig) -> None:
    session = await rig.create()
    rig.faults.fail(Operation.SNAPSHOT, "out of space")
    await rig.ending.request_stop(session.id)
    await rig.settle()
    ended = await rig.state.session(session.id)
    assert ended.status is SessionStatus.ERROR
    assert ended.error_message is not None
    assert ended.error_message.startswith("snapshot failed: ")
    assert await rig.workspaces.exists(session.workspace_key)
    await nothing_is_left(rig)


async def test_a_container_that_cannot_be_stopped_stays_stopping_until_it_can(rig: Rig) -> None:
    session = await rig.create()
    stuck = rig.containers.hang("stop")
    rig.containers.fail("stop", "the engine is busy", times=3)
    with rig.feed.subscribe() as subscription:
        await rig.ending.request_stop(session.id)
        await stuck.arrived()
        told = await subscription.take(1)
        assert {seen.status for seen in told} == {SessionStatus.STOPPING}
        stuck.release()
        await rig.settle()
    assert rig.clock.slept[-3:] == [0.5, 1.0, 2.0], "it was not tried again with growing pauses"
    ended = await rig.state.session(session.id)
    assert (ended.status, ended.error_message) == (SessionStatus.STOPPED, None)


async def test_a_stop_that_was_interrupted_takes_no_second_snapshot(rig: Rig) -> None:
    session = await rig.create()
    stuck = rig.containers.hang("remove")
    await rig.ending.request_stop(session.id)
    await stuck.arrived()
    assert len(await rig.workspaces.snapshots(session.workspace_key)) == 1
    rig.clock.offset += rig.clock.offset.resolution * 10_000_000
    rig.containers.fail("remove", "the engine went away", error=ContainerUnavailable)
    stuck.release()
    await rig.settle()
    assert (await rig.state.session(session.id)).status is SessionStatus.STOPPED
    assert len(await rig.workspaces.snapshots(session.workspace_key)) == 1


async def test_simultaneous_creates_never_share_a_gpu(rig: Rig) -> None:
    outcomes = await asyncio.gather(*(rig.create() for _ in range(12)), return_exceptions=True)
    running = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert sorted(session.gpu_id for session in running) == [0, 1]
    assert sum(isinstance(outcome, NoGpuAvailable) for outcome in outcomes) == 10


async def test_changes_reach_watchers_in_order(rig: Rig) -> None:
    with rig.feed.subscribe() as subscription:
        session = await rig.create()
        await rig.ending.request_stop(session.id)
        await rig.settle()
        (last,) = await subscription.take(1)
    assert last == await rig.state.session(session.id)
    assert isinstance(last.id, UUID)
