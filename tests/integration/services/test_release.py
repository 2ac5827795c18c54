"""A GPU after its session: free with proof, in quarantine without, and back by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from medforged.domain.errors import NoGpuAvailable
from medforged.domain.sessions import Session, SessionStatus
from tests.integration.services.rig import Rig, open_rig

pytestmark = pytest.mark.integration


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path, gpus=1) as opened:
        yield opened


async def stopped(rig: Rig, session: Session) -> Session:
    await rig.ending.request_stop(session.id)
    await rig.settle()
    return await rig.state.session(session.id)


async def test_a_gpu_without_processes_is_free_at_once(rig: Rig) -> None:
    session = await rig.create()
    assert (await stopped(rig, session)).status is SessionStatus.STOPPED
    assert (await rig.state.gpu(session.gpu_id)).usable
    assert (await rig.create()).gpu_id == session.gpu_id


async def test_a_process_that_stays_keeps_the_gpu_in_quarantine_until_it_has_gone(rig: Rig) -> None:
    session = await rig.create()
    rig.gpus.set_processes(session.gpu_uuid, [4242])
    assert (await stopped(rig, session)).status is SessionStatus.STOPPED
    gpu = await rig.state.gpu(session.gpu_id)
    assert gpu.quarantine is not None
    assert "4242" in gpu.quarantine
    assert gpu.quarantine_session_id == session.id
    with pytest.raises(NoGpuAvailable):
        await rig.create()
    assert await rig.watch.release_free() == ()
    assert any("4242" in problem for problem in rig.watch.problems)
    rig.gpus.set_processes(session.gpu_uuid, [])
    (released,) = await rig.watch.release_free()
    assert released.usable
    assert (await rig.create()).gpu_id == session.gpu_id


async def test_a_driver_that_says_nothing_proves_nothing(rig: Rig) -> None:
    session = await rig.create()
    rig.gpus.fail_driver("the driver does not answer")
    assert (await stopped(rig, session)).status is SessionStatus.STOPPED
    assert "does not answer" in ((await rig.state.gpu(session.gpu_id)).quarantine or "")
    rig.gpus.restore_driver()
    assert (await rig.watch.recheck(session.gpu_id)).usable


async def test_a_session_is_told_that_its_gpu_has_failed_and_the_reason_is_renewed(rig: Rig) -> None:
    session = await rig.create()
    rig.gpus.fail(session.gpu_uuid, "the driver reported Xid 79")
    await rig.watch.refresh()
    told = await rig.state.session(session.id)
    assert told.status is SessionStatus.RUNNING
    assert "Xid 79" in (told.error_message or "")
    await stopped(rig, session)
    assert "Xid 79" in ((await rig.state.gpu(session.gpu_id)).quarantine or "")
    rig.gpus.restore(session.gpu_uuid)
    rig.gpus.set_processes(session.gpu_uuid, [7])
    await rig.watch.release_free()
    assert "process 7" in ((await rig.state.gpu(session.gpu_id)).quarantine or "")
    rig.gpus.set_processes(session.gpu_uuid, [])
    assert (await rig.watch.recheck(session.gpu_id)).usable
