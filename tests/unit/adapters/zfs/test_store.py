"""The order of things in the ZFS store, and what it undoes, over datasets in memory."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from medforged.adapters.owned_directory import Owner
from medforged.adapters.zfs.layout import Layout
from medforged.adapters.zfs.listings import PoolState
from medforged.adapters.zfs.mounts import Mount
from medforged.adapters.zfs.problems import ZfsProblem
from medforged.adapters.zfs.store import ZfsWorkspaceStore
from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import WorkspaceKey
from tests.fakes.workspaces import SteppingClock, workspace_key
from tests.fakes.zfs import FakeDatasets, FakeMounts, not_empty

pytestmark = pytest.mark.unit

KEY = workspace_key(1)
ROOT = "tank/medforge/workspaces"
NAME = f"{ROOT}/{KEY.relative}"
USER = f"{ROOT}/{KEY.user_id}"


@dataclass
class Bench:
    """A store over fakes."""

    store: ZfsWorkspaceStore
    datasets: FakeDatasets
    mounts: FakeMounts
    clock: SteppingClock

    def path(self, key: WorkspaceKey = KEY) -> Path:
        return self.store.locate(key).path

    def done(self) -> list[str]:
        """What was done to datasets since the last time, without the names' common part."""
        journal = [entry.replace(f"{ROOT}/", "") for entry in self.datasets.journal]
        self.datasets.journal.clear()
        return journal


def bench(
    tmp_path: Path, *, pools: tuple[PoolState, ...] = (PoolState("tank", "ONLINE"),), harmless: bool = True
) -> Bench:
    layout = Layout.of("tank", "medforge/workspaces", tmp_path / "mounts")
    mounts, clock = FakeMounts(harmless=harmless), SteppingClock()
    datasets = FakeDatasets(layout, mounts, pools)
    owner = Owner(os.geteuid(), os.getegid())
    store = ZfsWorkspaceStore(layout, datasets, mounts, clock, adapter="fake", reason="a test", owner=owner)
    return Bench(store, datasets, mounts, clock)


@pytest.fixture
async def ready(tmp_path: Path) -> Bench:
    made = bench(tmp_path)
    await made.store.prepare()
    made.done()
    return made


async def test_prepares_the_root_and_what_is_above_it(tmp_path: Path) -> None:
    made = bench(tmp_path)
    await made.store.prepare()
    assert made.done() == [
        "pools",
        f"mountpoint {ROOT}",
        "create_group tank/medforge",
        f"create_root {ROOT}",
        f"mountpoint {ROOT}",
    ]
    mount_root = tmp_path / "mounts"
    assert stat.S_IMODE(mount_root.stat().st_mode) == 0o711
    mount_root.chmod(0o755)
    await made.store.prepare()
    assert made.done() == ["pools", f"mountpoint {ROOT}"]
    assert stat.S_IMODE(mount_root.stat().st_mode) == 0o755


async def test_a_missing_pool_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    made = bench(tmp_path, pools=(PoolState("rpool", "ONLINE"),))
    with pytest.raises(
        WorkspaceError, match=r"there is no pool tank \(pools: rpool\); .*zpool create tank .*set workspaces\.pool"
    ):
        await made.store.prepare()


async def test_a_pool_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    made = bench(tmp_path, pools=(PoolState("tank", "SUSPENDED"),))
    with pytest.raises(WorkspaceError, match="pool tank is SUSPENDED; see `zpool status tank`"):
        await made.store.prepare()


async def test_a_degraded_pool_serves(tmp_path: Path) -> None:
    await bench(tmp_path, pools=(PoolState("tank", "DEGRADED"),)).store.prepare()


async def test_a_root_that_is_mounted_elsewhere_is_not_moved(ready: Bench) -> None:
    ready.datasets.mountpoints[ROOT] = "/elsewhere"
    with pytest.raises(WorkspaceError, match=f"zfs set mountpoint=.* {ROOT}` while no session runs"):
        await ready.store.prepare()
    assert ready.datasets.mountpoints[ROOT] == "/elsewhere"


async def test_a_mount_root_that_others_can_change_is_refused(tmp_path: Path) -> None:
    made = bench(tmp_path)
    (tmp_path / "mounts").mkdir()
    (tmp_path / "mounts").chmod(0o777)
    with pytest.raises(WorkspaceError, match="can be changed by others than root; correct that"):
        await made.store.prepare()


async def test_a_returning_users_workspace_takes_one_operation(ready: Bench) -> None:
    await ready.store.create(KEY, 1024)
    assert ready.done() == [f"create {KEY.relative}", f"create_group {KEY.user_id}", f"create {KEY.relative}"]
    assert ready.datasets.quotas[NAME] == 1024
    second = workspace_key(2)
    await ready.store.create(second, None)
    assert ready.done() == [f"create {second.relative}"]


async def test_first_sessions_of_one_user_do_not_race(ready: Bench) -> None:
    keys = [workspace_key(number) for number in range(4)]
    await asyncio.gather(*(ready.store.create(key, None) for key in keys))
    assert sorted(await ready.store.keys(), key=str) == sorted(keys, key=str)
    assert sum(entry.startswith("create_group") for entry in ready.done()) == 1


async def test_a_users_dataset_that_somebody_else_makes_meanwhile_is_taken(ready: Bench) -> None:
    ready.datasets.datasets[USER] = {}
    ready.datasets.fail("create", ZfsProblem.PARENT_MISSING)
    assert await ready.store.create(KEY, None) == ready.store.locate(KEY)


async def test_makes_the_mount_harmless_where_zfs_did_not(tmp_path: Path) -> None:
    made = bench(tmp_path, harmless=False)
    await made.store.prepare()
    await made.store.create(KEY, None)
    assert made.mounts.restricted == [made.path()]


async def test_leaves_a_harmless_mount_alone(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    assert ready.mounts.restricted == []


async def test_repairs_a_workspace_whose_creation_was_cut_off(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    ready.path().chmod(0o755)
    await ready.store.create(KEY, None)
    assert stat.S_IMODE(ready.path().stat().st_mode) == 0o700


async def test_mounts_a_workspace_that_is_not_mounted(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    ready.mounts.mounted.clear()
    ready.done()
    await ready.store.create(KEY, None)
    assert ready.done() == [f"create {KEY.relative}", f"mount {KEY.relative}"]
    assert ready.path() in ready.mounts.mounted


@pytest.mark.parametrize("problem", [ZfsProblem.NO_SPACE, ZfsProblem.STUCK, ZfsProblem.UNREACHABLE])
async def test_undoes_nothing_that_it_has_not_made(ready: Bench, problem: ZfsProblem) -> None:
    ready.datasets.fail("create", problem)
    with pytest.raises(WorkspaceError, match=f"^cannot create workspace {NAME}: the test lets create fail; "):
        await ready.store.create(KEY, None)
    assert ready.done() == [f"create {KEY.relative}"]


async def test_undoes_a_dataset_that_could_not_be_mounted(ready: Bench) -> None:
    ready.mounts.error = not_empty()
    with pytest.raises(WorkspaceError, match=r"cannot create workspace .*: .*Directory not empty; empty or move away"):
        await ready.store.create(KEY, None)
    assert not await ready.store.exists(KEY)


async def test_undoes_a_dataset_that_could_not_be_handed_over(ready: Bench) -> None:
    path = ready.path()
    path.parent.mkdir()
    target = path.parent.parent / "target"
    target.mkdir()
    target.chmod(0o755)
    path.symlink_to(target)  # never seen, but what if: nothing may happen to where it leads
    with pytest.raises(WorkspaceError, match="cannot create workspace"):
        await ready.store.create(KEY, None)
    assert not await ready.store.exists(KEY)
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


async def test_undoes_a_dataset_under_which_something_else_is_mounted(ready: Bench) -> None:
    find = ready.mounts.find
    ready.mounts.find = lambda path: Mount("tank/other", path, frozenset()) if find(path) else None  # type: ignore[method-assign]  # a fake's method
    with pytest.raises(WorkspaceError, match="tank/other is mounted there, see `zfs get mountpoint"):
        await ready.store.create(KEY, None)
    assert not await ready.store.exists(KEY)


async def test_undoes_what_was_restored_and_could_not_be_mounted(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    await ready.store.snapshot(KEY, "stop-1")
    target = workspace_key(2)
    ready.mounts.error = not_empty()
    with pytest.raises(WorkspaceError, match=rf"cannot restore {NAME}@stop-1 into .*Directory not empty"):
        await ready.store.restore(KEY, "stop-1", target, None)
    assert not await ready.store.exists(target)
    assert await ready.store.exists(KEY)


async def test_restores_for_a_user_without_a_workspace_of_their_own(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    await ready.store.snapshot(KEY, "stop-1")
    other = workspace_key(2, user=2)
    await ready.store.restore(KEY, "stop-1", other, 7)
    assert ready.datasets.quotas[ready.store.locate(other).dataset] == 7


async def test_a_rollback_waits_for_what_is_busy(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    await ready.store.snapshot(KEY, "stop-1")
    ready.datasets.fail("roll_back", ZfsProblem.BUSY, ZfsProblem.BUSY)
    await ready.store.roll_back(KEY, "stop-1")
    assert len(ready.clock.pauses) == 2


async def test_an_undo_that_fails_is_told(ready: Bench) -> None:
    ready.mounts.error = not_empty()
    ready.datasets.fail("destroy", ZfsProblem.READ_ONLY)
    with pytest.raises(WorkspaceError, match=r"cannot create workspace .* \(and cannot remove it again: read-only"):
        await ready.store.create(KEY, None)


async def test_never_destroys_a_workspace_that_was_there_before(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    ready.mounts.mounted.clear()
    ready.datasets.fail("mount", ZfsProblem.NOT_MOUNTED)
    with pytest.raises(WorkspaceError, match="cannot create workspace"):
        await ready.store.create(KEY, None)
    ready.mounts.mounted[ready.path()] = Mount("tank/other", ready.path(), frozenset())
    with pytest.raises(WorkspaceError, match="tank/other is mounted there"):
        await ready.store.create(KEY, None)
    assert await ready.store.exists(KEY)
    assert not any(entry.startswith("destroy") for entry in ready.done())


async def test_a_dead_daemons_mount_is_told_with_its_remedy(ready: Bench) -> None:
    def dead(path: Path) -> Mount | None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", str(path))

    await ready.store.create(KEY, None)
    ready.mounts.find = dead  # type: ignore[method-assign]  # a fake's method
    with pytest.raises(WorkspaceError, match="its ZFS daemon has ended; unmount it with `umount -l`"):
        await ready.store.create(KEY, None)


async def test_retries_while_busy_and_no_longer_than_allowed(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    ready.datasets.fail("destroy", *[ZfsProblem.BUSY] * 3)
    await ready.store.discard(KEY)
    assert ready.clock.pauses == [0.02, 0.04, 0.08]
    assert not await ready.store.exists(KEY)


async def test_gives_up_on_what_stays_busy(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    ready.datasets.fail("destroy", *[ZfsProblem.BUSY] * 100)
    with pytest.raises(WorkspaceError, match=f"cannot discard workspace {NAME}: .*; see `fuser -vm`"):
        await ready.store.discard(KEY)
    assert max(ready.clock.pauses) == 1.0
    assert 8.0 < sum(ready.clock.pauses) <= 10.0
    assert await ready.store.exists(KEY)


async def test_mounts_what_has_been_unmounted_just_now(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    ready.mounts.mounted.clear()
    ready.datasets.fail("mount", ZfsProblem.BUSY)
    await ready.store.create(KEY, None)
    assert ready.path() in ready.mounts.mounted


async def test_does_not_retry_what_will_not_pass(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    ready.datasets.fail("destroy", ZfsProblem.HAS_CHILDREN)
    with pytest.raises(WorkspaceError, match="only an operator destroys snapshots"):
        await ready.store.discard(KEY)
    assert ready.clock.pauses == []


async def test_does_not_wait_for_a_suspended_pool(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    ready.datasets.fail("snapshot", ZfsProblem.SUSPENDED)
    with pytest.raises(WorkspaceError, match=r"cannot take snapshot .*; see `zpool status -x`, bring the device back"):
        await ready.store.snapshot(KEY, "stop-1")
    ready.datasets.fail("destroy", ZfsProblem.SUSPENDED)
    with pytest.raises(WorkspaceError, match="cannot discard workspace"):
        await ready.store.discard(KEY)
    assert ready.clock.pauses == []


async def test_removes_the_mount_point_that_zfs_has_left(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    assert ready.path().is_dir()
    await ready.store.discard(KEY)
    assert not ready.path().exists()


async def test_never_removes_what_is_in_a_mount_point(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    (ready.path() / "kept").touch()
    await ready.store.discard(KEY)
    assert (ready.path() / "kept").exists()


async def test_what_is_absent_is_no_error(ready: Bench) -> None:
    assert await ready.store.snapshots(KEY) == ()
    assert not await ready.store.exists(KEY)
    await ready.store.discard(KEY)


async def test_strangers_are_no_workspaces(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    for name in (f"{ROOT}/backup", f"{ROOT}/backup/x", f"{USER}/notes", f"{NAME}/child", f"{ROOT}-old/{KEY.relative}"):
        ready.datasets.datasets[name] = {}
    assert await ready.store.keys() == (KEY,)


async def test_a_root_that_has_gone_is_no_empty_answer(ready: Bench) -> None:
    ready.datasets.datasets.clear()
    with pytest.raises(WorkspaceError, match=f"cannot list the workspaces of {ROOT}"):
        await ready.store.keys()


@pytest.mark.parametrize("operation", ["exists", "snapshots", "filesystems"])
async def test_a_host_without_answer_is_told_in_every_reading(ready: Bench, operation: str) -> None:
    ready.datasets.fail(operation, ZfsProblem.UNREACHABLE)
    reading: dict[str, Callable[[], Awaitable[object]]] = {
        "exists": lambda: ready.store.exists(KEY),
        "snapshots": lambda: ready.store.snapshots(KEY),
        "filesystems": ready.store.keys,
    }
    with pytest.raises(WorkspaceError, match="modprobe zfs"):
        await reading[operation]()


async def test_what_is_empty(ready: Bench) -> None:
    assert await ready.store.is_empty(KEY)
    await ready.store.create(KEY, None)
    assert await ready.store.is_empty(KEY)
    (ready.path() / ".hidden").touch()
    assert not await ready.store.is_empty(KEY)
    (ready.path() / ".hidden").unlink()
    await ready.datasets.create_group(f"{NAME}/child")
    assert not await ready.store.is_empty(KEY)
    await ready.datasets.destroy(f"{NAME}/child")
    shutil.rmtree(ready.path())
    ready.path().mkdir()
    assert await ready.store.is_empty(KEY)
    await ready.store.snapshot(KEY, "stop-1")
    assert not await ready.store.is_empty(KEY)


async def test_an_unmounted_dataset_is_not_empty_though_its_mount_point_is(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    del ready.mounts.mounted[ready.path()]
    assert list(ready.path().iterdir()) == []
    assert not await ready.store.is_empty(KEY)
    ready.mounts.mounted[ready.path()] = Mount("tank/other", ready.path(), frozenset())
    assert not await ready.store.is_empty(KEY)
    ready.path().rmdir()
    assert not await ready.store.is_empty(KEY)


async def test_a_dataset_that_is_mounted_while_its_mount_point_is_looked_into_is_not_empty(ready: Bench) -> None:
    await ready.store.create(KEY, None)
    path = ready.path()
    (path / "file").touch()
    mounted, covered = path.with_name("mounted"), path.with_name("covered")
    path.rename(mounted)
    path.mkdir()

    def mount() -> None:
        # The directory that is open is the empty one; from now on the path leads to the dataset.
        path.rename(covered)
        mounted.rename(path)

    ready.mounts.before_find = mount
    assert not await ready.store.is_empty(KEY)
    assert covered.exists()


async def test_a_link_is_never_looked_through(ready: Bench, tmp_path: Path) -> None:
    await ready.store.create(KEY, None)
    ready.path().rmdir()
    (tmp_path / "elsewhere").mkdir()
    ready.path().symlink_to(tmp_path / "elsewhere")
    assert not await ready.store.is_empty(KEY)


@pytest.mark.parametrize("operation", ["filesystems", "snapshots"])
async def test_a_pool_that_cannot_be_asked_is_an_error(ready: Bench, operation: str) -> None:
    await ready.store.create(KEY, None)
    ready.datasets.fail(operation, ZfsProblem.SUSPENDED)
    with pytest.raises(WorkspaceError, match=f"cannot look into workspace {NAME}"):
        await ready.store.is_empty(KEY)
    ready.datasets.fail(operation, ZfsProblem.MISSING)
    assert await ready.store.is_empty(KEY)
