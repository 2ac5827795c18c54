"""The simulated store's faults, which the scale tests stand on, what it keeps, and the faults of the fake."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.workspaces import RandomFaults, SimulatedWorkspaceStore
from medforged.domain.errors import WorkspaceError
from tests.fakes.workspaces import FakeWorkspaceStore, SteppingClock, workspace_key

pytestmark = pytest.mark.unit


async def create_many(*, rate: float, seed: int = 0, seconds: float = 0.0) -> tuple[list[str], SteppingClock]:
    """The outcome of 200 creations, one after the other."""
    clock = SteppingClock()
    store = SimulatedWorkspaceStore(clock, faults=RandomFaults(clock, rate=rate, seed=seed, seconds=seconds))
    outcomes = []
    for number in range(200):
        try:
            await store.create(workspace_key(number), None)
        except WorkspaceError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("made")
    return outcomes, clock


async def test_a_share_fails_before_and_after_the_effect() -> None:
    outcomes, _ = await create_many(rate=0.5)
    before = sum("fault before its effect" in outcome for outcome in outcomes)
    after = sum("fault after its effect" in outcome for outcome in outcomes)
    assert 30 < before < 70
    assert 20 < after < 60
    assert outcomes.count("made") == 200 - before - after


async def test_a_seed_gives_the_same_faults() -> None:
    first, _ = await create_many(rate=0.5, seed=1)
    assert first == (await create_many(rate=0.5, seed=1))[0]
    assert first != (await create_many(rate=0.5, seed=2))[0]


async def test_everything_works_by_default() -> None:
    assert set((await create_many(rate=0))[0]) == {"made"}


async def test_operations_take_a_while() -> None:
    _, clock = await create_many(rate=0, seconds=0.1)
    assert len(clock.pauses) == 200
    assert 0 < max(clock.pauses) <= 0.1


async def test_touches_no_disk(tmp_path: Path) -> None:
    store = SimulatedWorkspaceStore(SteppingClock(), mount_root=tmp_path / "mounts")
    await store.prepare()
    workspace = await store.create(workspace_key(1), 1024)
    await store.snapshot(workspace_key(1), "stop-1")
    assert workspace.path == tmp_path / "mounts" / workspace_key(1).relative
    assert list(os.scandir(tmp_path)) == []
    assert not store.describe().real


async def test_a_creation_that_fails_leaves_nothing() -> None:
    store = FakeWorkspaceStore()
    store.fail("create", "cannot create: no", after=True)
    with pytest.raises(WorkspaceError, match="cannot create: no"):
        await store.create(workspace_key(1), None)
    assert not await store.exists(workspace_key(1))
    await store.create(workspace_key(1), None)
    store.fail("create", after=True)
    with pytest.raises(WorkspaceError):
        await store.create(workspace_key(1), None)
    assert await store.exists(workspace_key(1))


async def test_a_snapshot_whose_answer_is_lost_was_taken() -> None:
    store = FakeWorkspaceStore()
    await store.create(workspace_key(1), None)
    store.fail("snapshot", after=True)
    with pytest.raises(WorkspaceError):
        await store.snapshot(workspace_key(1), "stop-1")
    assert [snapshot.name for snapshot in await store.snapshots(workspace_key(1))] == ["stop-1"]
    store.fail("snapshot")
    with pytest.raises(WorkspaceError):
        await store.snapshot(workspace_key(1), "stop-2")
    assert len(await store.snapshots(workspace_key(1))) == 1


async def test_a_held_operation_has_no_effect_yet() -> None:
    store = FakeWorkspaceStore()
    store.pause("create")
    task = asyncio.create_task(store.create(workspace_key(1), None))
    await store.arrived("create")
    assert not await store.exists(workspace_key(1))
    store.proceed("create")
    await task
    assert await store.exists(workspace_key(1))
    assert store.journal == ["create", "exists", "exists"]


async def test_emptiness() -> None:
    store = SimulatedWorkspaceStore(SteppingClock())
    key = workspace_key(1)
    assert await store.is_empty(key)
    with pytest.raises(WorkspaceError, match="there is no such workspace"):
        store.write(key)
    await store.create(key, None)
    assert await store.is_empty(key)
    store.write(key, 2)
    assert not await store.is_empty(key)
    store.write(key, 0)
    assert await store.is_empty(key)
    await store.snapshot(key, "stop-1")
    assert not await store.is_empty(key)


async def test_a_hanging_call_holds_up_no_other() -> None:
    store = SimulatedWorkspaceStore(SteppingClock())
    await store.create(workspace_key(1), None)
    await store.create(workspace_key(2), None)
    hang = store.hang("snapshot", workspace_key(1))
    stuck = asyncio.create_task(store.snapshot(workspace_key(1), "stop-1"))
    await hang.arrived()
    await store.snapshot(workspace_key(2), "stop-1")
    assert await store.snapshots(workspace_key(1)) == ()
    assert not stuck.done()
    hang.release()
    taken = await stuck
    assert await store.snapshots(workspace_key(1)) == (taken,)
    with pytest.raises(ValueError, match="copy"):
        store.hang("copy")


@pytest.mark.integration
async def test_workspaces_and_snapshots_outlive_the_process(tmp_path: Path) -> None:
    key, clock = workspace_key(1), SteppingClock()
    first = SimulatedWorkspaceStore(clock, host=SimulatedHost(tmp_path))
    await first.create(key, 1024)
    taken = [await first.snapshot(key, name) for name in ("stop-9", "death-1")]
    first.write(key)

    again = SimulatedWorkspaceStore(clock, host=SimulatedHost(tmp_path))

    assert await again.keys() == (key,)
    assert await again.snapshots(key) == tuple(taken)
    assert await again.snapshot(key, "stop-9") == taken[0]
    (path,) = (tmp_path / "workspaces").iterdir()
    assert path.name == f"{key.user_id}_{key.session_id}.json"
    item = json.loads(path.read_text())
    assert (item["quota_bytes"], item["files"]) == (1024, 1)
    assert [snapshot["name"] for snapshot in item["snapshots"]] == ["stop-9", "death-1"]
    path.unlink()
    assert not await first.exists(key)
    assert await first.is_empty(key)


@pytest.mark.integration
async def test_a_disk_that_cannot_be_written_is_an_error_of_the_port(tmp_path: Path) -> None:
    (tmp_path / "workspaces").write_text("in the way")
    store = SimulatedWorkspaceStore(SteppingClock(), host=SimulatedHost(tmp_path))
    with pytest.raises(WorkspaceError, match=r"cannot (read|write) .*/workspaces"):
        await store.create(workspace_key(1), None)
