"""No session waits for ever, and none waits for another's stuck call."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from medforged.domain.errors import CreateFailed
from medforged.domain.sessions import SessionStatus
from medforged.ports.state import SessionQuery
from medforged.services.journal import RecoveryMode
from tests.integration.services.rig import open_rig

pytestmark = pytest.mark.integration


async def test_a_create_that_hangs_is_undone_after_its_deadline_and_holds_up_nobody(tmp_path: Path) -> None:
    async with open_rig(tmp_path, deadline_seconds=0.5) as rig:
        stuck = rig.containers.hang("create")
        creating = asyncio.ensure_future(rig.create())
        await stuck.arrived()
        (hanging,) = await rig.state.active()
        stuck.release()
        stuck = rig.containers.hang("start", hanging.container_name)
        await stuck.arrived()
        other = await rig.create()
        await rig.ending.request_stop(other.id)
        with pytest.raises(CreateFailed, match="cannot get it ready"):
            await creating
        stuck.release()
        await rig.settle()
        ended = {session.id: session for session in await rig.state.sessions(SessionQuery())}
        assert ended[hanging.id].status is SessionStatus.ERROR
        assert (ended[hanging.id].error_message or "").startswith("create failed: cannot get it ready")
        assert ended[other.id].status is SessionStatus.STOPPED
        assert await rig.containers.containers() == ()
        assert await rig.state.gpu_holders() == {}


async def test_a_container_that_cannot_be_ended_ends_its_session_all_the_same(tmp_path: Path) -> None:
    async with open_rig(tmp_path, deadline_seconds=0.3, step_seconds=0.1) as rig:
        session = await rig.create()
        stuck = rig.containers.hang("stop", session.container_name)
        held = rig.containers.hang("remove", session.container_name)
        await rig.ending.request_stop(session.id)
        other = await rig.create()
        assert other.gpu_id != session.gpu_id
        await rig.settle()
        ended = await rig.state.session(session.id)
        assert ended.status is SessionStatus.ERROR
        assert (ended.error_message or "").startswith("stop failed: ")
        assert len(await rig.workspaces.snapshots(session.workspace_key)) == 1
        gpu = await rig.state.gpu(session.gpu_id)
        assert session.container_name in (gpu.quarantine or "")
        assert await rig.watch.release_free() == ()
        stuck.release()
        held.release()
        await rig.reconciliation.run(RecoveryMode.POLL)
        assert (await rig.state.gpu(session.gpu_id)).usable
        assert [seen.name for seen in await rig.containers.containers()] == [other.container_name]


async def test_a_look_that_hangs_does_not_stop_a_pass_for_others(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        first, second = await rig.create(), await rig.create()
        stuck = rig.containers.hang("inspect", first.container_name)
        rig.containers.die(first.container_name)
        rig.containers.die(second.container_name)
        report = await rig.reconciliation.run(RecoveryMode.POLL, patience_seconds=1)
        assert (await rig.state.session(second.id)).status is SessionStatus.ERROR
        assert (await rig.state.session(first.id)).status is SessionStatus.RUNNING
        assert sorted(action.outcome.value for action in report.actions) == ["ended", "pending"]
        stuck.release()
        await rig.settle()
        assert (await rig.state.session(first.id)).status is SessionStatus.ERROR


async def test_a_leftover_that_does_not_go_holds_up_no_pass(tmp_path: Path) -> None:
    async with open_rig(tmp_path, deadline_seconds=0.3, step_seconds=0.1) as rig:
        session, other = await rig.create(), await rig.create()
        held = rig.containers.hang("remove", session.container_name)
        await rig.ending.request_stop(session.id)
        await rig.settle()
        stuck = rig.containers.hang("inspect", session.container_name)
        rig.containers.die(other.container_name)
        report = await rig.reconciliation.run(RecoveryMode.POLL, patience_seconds=1)
        assert (await rig.state.session(other.id)).status is SessionStatus.ERROR
        assert {action.subject: action.outcome.value for action in report.actions} == {
            session.container_name: "failed",
            other.container_name: "ended",
        }
        held.release()
        stuck.release()
        await rig.reconciliation.run(RecoveryMode.POLL)
        assert (await rig.state.gpu(session.gpu_id)).usable
