"""Owns the conformance suite of the `workspaces` port: fake, simulated, directories and ZFS behave alike."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from medforged.adapters.clock import SystemClock
from medforged.adapters.directories.store import DirectoryWorkspaceStore
from medforged.adapters.owned_directory import Owner
from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.workspaces import SimulatedWorkspaceStore
from medforged.adapters.zfs.detect import ZfsKind, command_store, core_store, detect
from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import SnapshotKind, WorkspaceKey, snapshot_name
from medforged.ports.workspaces import WorkspaceStore
from tests.fakes.workspaces import FakeWorkspaceStore
from tests.host.zfs_pool import ScratchPool, scratch_pool, zfs

MIB = 1024 * 1024


class Store(WorkspaceStore, Protocol):
    """Every adapter also tells what precedes a workspace's name."""

    @property
    def root(self) -> str: ...


@pytest.fixture(scope="module")
def pool() -> Iterator[ScratchPool]:
    with scratch_pool() as made:
        yield made


@pytest.fixture(
    params=[
        pytest.param("fake", marks=pytest.mark.unit),
        pytest.param("simulated", marks=pytest.mark.unit),
        pytest.param("simulated in a folder", marks=pytest.mark.integration),
        pytest.param("directories", marks=pytest.mark.integration),
        pytest.param("directories as root", marks=pytest.mark.host),
        pytest.param("zfs commands", marks=pytest.mark.host),
        pytest.param(
            "libzfs_core",
            marks=[
                pytest.mark.host,
                pytest.mark.skipif(not Path("/dev/zfs").exists(), reason="no /dev/zfs for libzfs_core"),
            ],
        ),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store that is prepared."""
    made: Store
    match request.param:
        case "fake":
            made = FakeWorkspaceStore()
        case "simulated":
            made = SimulatedWorkspaceStore(SystemClock())
        case "simulated in a folder":
            made = SimulatedWorkspaceStore(SystemClock(), host=SimulatedHost(tmp_path))
        case "directories":
            made = DirectoryWorkspaceStore(tmp_path / "workspaces", owner=Owner(os.geteuid(), os.getegid()))
        case "directories as root":
            made = DirectoryWorkspaceStore(tmp_path / "workspaces")
        case kind:
            made = await on_zfs(kind, request.getfixturevalue("pool"))
    await made.prepare()
    return made


async def on_zfs(kind: str, pool: ScratchPool) -> Store:
    name = uuid4().hex
    root, mount_root = f"{name}/workspaces", pool.directory / name
    if kind == "zfs commands":
        return command_store(pool.name, SystemClock(), root=root, mount_root=mount_root)
    found = await detect(pool.name)
    assert found.kind is ZfsKind.LIBZFS_CORE, found.reason
    return core_store(pool.name, SystemClock(), root=root, mount_root=mount_root)


def write(store: Store, wanted: WorkspaceKey) -> None:
    """Let a file be in a workspace."""
    if isinstance(store, SimulatedWorkspaceStore):
        store.write(wanted)
    else:
        (store.locate(wanted).path / "file").touch()


def holds(store: Store, wanted: WorkspaceKey, name: str) -> int:
    """By how many tags a snapshot is held, as the storage itself tells."""
    workspace = store.locate(wanted)
    if isinstance(store, SimulatedWorkspaceStore):
        return store.held(wanted, name)
    if isinstance(store, DirectoryWorkspaceStore):
        folder = Path(store.root, ".snapshots", wanted.relative, ".holds", name)
        return len(list(folder.iterdir())) if folder.exists() else 0
    return int(zfs("get", "-Hp", "-o", "value", "userrefs", f"{workspace.dataset}@{name}"))


def key(*, of: WorkspaceKey | None = None) -> WorkspaceKey:
    """A key that nothing has; of the same user as another where one is given."""
    return WorkspaceKey(of.user_id if of else uuid4(), uuid4())


def test_describes_itself(store: Store) -> None:
    description = store.describe()
    assert description.port == "workspaces"
    assert description.adapter
    assert description.reason


def test_locates_without_making(store: Store) -> None:
    wanted = key()
    workspace = store.locate(wanted)
    assert workspace.key == wanted
    assert workspace.dataset == f"{store.root}/{wanted.relative}"
    assert workspace.path.is_absolute()
    assert workspace.path.parts[-2:] == (str(wanted.user_id), str(wanted.session_id))


async def test_what_is_absent_is_no_error(store: Store) -> None:
    wanted = key()
    assert not await store.exists(wanted)
    assert await store.snapshots(wanted) == ()
    await store.discard(wanted)
    assert await store.keys() == ()


async def test_creates_where_it_locates(store: Store) -> None:
    wanted = key()
    assert await store.create(wanted, 64 * MIB) == store.locate(wanted)
    assert await store.exists(wanted)
    assert await store.keys() == (wanted,)
    assert await store.snapshots(wanted) == ()


async def test_creating_again_changes_nothing(store: Store) -> None:
    wanted = key()
    first = await store.create(wanted, None)
    assert await store.create(wanted, 64 * MIB) == first
    assert await store.keys() == (wanted,)


async def test_preparing_again_keeps_everything(store: Store) -> None:
    wanted = key()
    await store.create(wanted, None)
    await store.prepare()
    assert await store.keys() == (wanted,)


@pytest.mark.parametrize("quota_bytes", [0, -1])
async def test_refuses_a_quota_that_is_none_and_leaves_nothing(store: Store, quota_bytes: int) -> None:
    wanted = key()
    with pytest.raises(WorkspaceError, match=f"quota of {quota_bytes} bytes"):
        await store.create(wanted, quota_bytes)
    assert not await store.exists(wanted)
    assert await store.keys() == ()


async def test_discards(store: Store) -> None:
    wanted = key()
    kept = key(of=wanted)
    await store.create(wanted, None)
    await store.create(kept, None)
    await store.discard(wanted)
    assert not await store.exists(wanted)
    assert await store.keys() == (kept,)
    await store.discard(wanted)
    assert await store.create(wanted, None) == store.locate(wanted)


async def test_takes_a_snapshot(store: Store) -> None:
    wanted = key()
    await store.create(wanted, None)
    before = datetime.now(UTC)
    name = snapshot_name(SnapshotKind.STOP, before)
    taken = await store.snapshot(wanted, name)
    assert (taken.key, taken.dataset, taken.name) == (wanted, store.locate(wanted).dataset, name)
    assert taken.full_name == f"{store.root}/{wanted.relative}@{name}"
    assert taken.created_at.utcoffset() == timedelta(0)
    assert await store.snapshots(wanted) == (taken,)


async def test_a_snapshot_is_taken_once(store: Store) -> None:
    wanted = key()
    await store.create(wanted, None)
    first = await store.snapshot(wanted, "stop-1")
    assert await store.snapshot(wanted, "stop-1") == first
    assert await store.snapshots(wanted) == (first,)


async def test_lists_snapshots_from_the_oldest(store: Store) -> None:
    wanted, other = key(), key()
    await store.create(wanted, None)
    await store.create(other, None)
    # Neither in the names' order nor a second apart.
    taken = [await store.snapshot(wanted, name) for name in ("stop-9", "death-5", "stop-1", "a.b:c_d-e")]
    await store.snapshot(other, "stop-3")
    assert await store.snapshots(wanted) == tuple(taken)
    assert [snapshot.name for snapshot in await store.snapshots(other)] == ["stop-3"]


async def test_no_snapshot_of_what_is_absent(store: Store) -> None:
    wanted = key()
    with pytest.raises(WorkspaceError, match=f"cannot take snapshot .*{wanted.session_id}@stop-1"):
        await store.snapshot(wanted, "stop-1")
    assert not await store.exists(wanted)


@pytest.mark.parametrize("name", ["", "-r", "a b", "a/b", "../a", ".hidden", "a@b", "a#b", "a\nb", "ü", "x" * 101])
async def test_refuses_names_that_are_no_snapshots(store: Store, name: str) -> None:
    wanted = key()
    await store.create(wanted, None)
    with pytest.raises(WorkspaceError, match="name may hold"):
        await store.snapshot(wanted, name)
    assert await store.snapshots(wanted) == ()


async def test_never_discards_what_has_snapshots(store: Store) -> None:
    wanted = key()
    await store.create(wanted, None)
    taken = await store.snapshot(wanted, "stop-1")
    with pytest.raises(WorkspaceError, match="cannot discard workspace"):
        await store.discard(wanted)
    assert await store.exists(wanted)
    assert await store.snapshots(wanted) == (taken,)
    assert await store.create(wanted, None) == store.locate(wanted)


async def test_what_is_absent_or_fresh_is_empty(store: Store) -> None:
    wanted = key()
    assert await store.is_empty(wanted)
    await store.create(wanted, 64 * MIB)
    assert await store.is_empty(wanted)
    await store.discard(wanted)
    assert await store.is_empty(wanted)


async def test_what_has_a_file_is_not_empty(store: Store) -> None:
    wanted, other = key(), key()
    await store.create(wanted, None)
    await store.create(other, None)
    write(store, wanted)
    assert not await store.is_empty(wanted)
    assert await store.is_empty(other)


async def test_what_has_a_snapshot_is_not_empty(store: Store) -> None:
    wanted = key()
    await store.create(wanted, None)
    await store.snapshot(wanted, "stop-1")
    assert not await store.is_empty(wanted)


async def test_twenty_at_once(store: Store) -> None:
    first = [key() for _ in range(5)]
    wanted = {key(of=user) for user in first for _ in range(4)}
    await asyncio.gather(*(store.create(each, 64 * MIB) for each in wanted))
    assert set(await store.keys()) == wanted


async def test_the_same_at_once(store: Store) -> None:
    wanted = key()
    made = await asyncio.gather(*(store.create(wanted, None) for _ in range(5)))
    assert set(made) == {store.locate(wanted)}
    assert await store.keys() == (wanted,)
    taken = await asyncio.gather(*(store.snapshot(wanted, "stop-1") for _ in range(5)))
    assert set(taken) == set(await store.snapshots(wanted))
    assert len(set(taken)) == 1


async def test_different_snapshots_at_once(store: Store) -> None:
    wanted = key()
    await store.create(wanted, None)
    names = {f"stop-{number}" for number in range(5)}
    await asyncio.gather(*(store.snapshot(wanted, name) for name in names))
    assert {snapshot.name for snapshot in await store.snapshots(wanted)} == names


async def test_restores_into_another_workspace(store: Store) -> None:
    source = key()
    target, later = key(of=source), key()
    await store.create(source, 64 * MIB)
    write(store, source)
    await store.snapshot(source, "stop-1")
    assert await store.restore(source, "stop-1", target, 64 * MIB) == store.locate(target)
    assert not await store.is_empty(target)
    # Of its own: without snapshots, in the listing, for another user as well.
    assert await store.snapshots(target) == ()
    assert await store.restore(source, "stop-1", later, None) == store.locate(later)
    assert set(await store.keys()) == {source, target, later}
    # What has been restored can be let go without its source.
    await store.discard(target)
    assert [snapshot.name for snapshot in await store.snapshots(source)] == ["stop-1"]


async def test_restoring_again_keeps_what_is_there(store: Store) -> None:
    source, target = key(), key()
    await store.create(source, None)
    await store.snapshot(source, "stop-1")
    await store.restore(source, "stop-1", target, None)
    write(store, target)
    assert await store.restore(source, "stop-1", target, 64 * MIB) == store.locate(target)
    assert not await store.is_empty(target)


@pytest.mark.parametrize("missing", ["workspace", "snapshot"])
async def test_what_is_absent_cannot_be_restored_and_leaves_nothing(store: Store, missing: str) -> None:
    source, target = key(), key()
    if missing == "snapshot":
        await store.create(source, None)
        await store.snapshot(source, "stop-1")
    with pytest.raises(
        WorkspaceError, match=rf"cannot restore .*{source.session_id}@stop-2 into .*{target.session_id}"
    ):
        await store.restore(source, "stop-2", target, None)
    assert not await store.exists(target)
    assert target not in await store.keys()


async def test_rolls_back_to_the_newest_snapshot_and_to_no_other(store: Store) -> None:
    wanted = key()
    await store.create(wanted, None)
    first = await store.snapshot(wanted, "stop-1")
    second = await store.snapshot(wanted, "stop-2")
    write(store, wanted)
    with pytest.raises(WorkspaceError, match=r"cannot roll .* back to stop-1: .*newest.*; restore it"):
        await store.roll_back(wanted, "stop-1")
    await store.roll_back(wanted, "stop-2")
    assert await store.snapshots(wanted) == (first, second)
    other = key()
    await store.restore(wanted, "stop-2", other, None)
    assert await store.is_empty(other)
    with pytest.raises(WorkspaceError, match=r"cannot roll .* back to stop-3"):
        await store.roll_back(wanted, "stop-3")


async def test_holds_are_by_tag_and_kept_until_they_are_released(store: Store) -> None:
    wanted = key()
    await store.create(wanted, None)
    taken = await store.snapshot(wanted, "stop-1")
    assert holds(store, wanted, "stop-1") == 0
    for tag in ("retention", "request-7", "retention"):
        await store.hold(wanted, "stop-1", tag)
    assert holds(store, wanted, "stop-1") == 2
    assert await store.snapshots(wanted) == (taken,)
    for _ in range(2):
        await store.release(wanted, "stop-1", "retention")
    assert holds(store, wanted, "stop-1") == 1
    await store.release(wanted, "stop-1", "request-7")
    await store.release(wanted, "stop-9", "request-7")
    await store.release(key(), "stop-1", "request-7")
    assert holds(store, wanted, "stop-1") == 0


async def test_what_is_absent_cannot_be_held(store: Store) -> None:
    wanted = key()
    with pytest.raises(WorkspaceError, match=f"cannot hold snapshot .*{wanted.session_id}@stop-1"):
        await store.hold(wanted, "stop-1", "retention")
    await store.create(wanted, None)
    with pytest.raises(WorkspaceError, match="cannot hold snapshot"):
        await store.hold(wanted, "stop-1", "retention")


@pytest.mark.parametrize("tag", ["", "-r", "A", "a b", "a/b", "a@b", "ü", "x" * 41])
async def test_refuses_tags_that_are_none(store: Store, tag: str) -> None:
    wanted = key()
    await store.create(wanted, None)
    await store.snapshot(wanted, "stop-1")
    for call in (store.hold, store.release):
        with pytest.raises(WorkspaceError, match=r"the tag .* may hold"):
            await call(wanted, "stop-1", tag)
    assert holds(store, wanted, "stop-1") == 0


@pytest.mark.parametrize("name", ["", "-r", "../a", "a@b", "x" * 101])
async def test_refuses_names_of_snapshots_everywhere(store: Store, name: str) -> None:
    wanted = key()
    await store.create(wanted, None)
    for attempt in (
        store.restore(wanted, name, key(), None),
        store.roll_back(wanted, name),
        store.hold(wanted, name, "tag"),
        store.release(wanted, name, "tag"),
    ):
        with pytest.raises(WorkspaceError, match="name may hold"):
            await attempt
