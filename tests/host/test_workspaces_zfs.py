"""Workspaces on a real ZFS: who owns them, what their quota holds, what snapshots keep, and what tenants can try.

Runs on ZFS in user space (zfs-fuse) as well as on OpenZFS in the kernel, through whichever adapter the host has:
`libzfs_core` where /dev/zfs is, else the `zfs` command, which is tested on both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from medforged.adapters.clock import SystemClock
from medforged.adapters.zfs.commands import CommandDatasets
from medforged.adapters.zfs.detect import ZfsKind, command_store, core_store, detect, host_commands
from medforged.adapters.zfs.store import ZfsWorkspaceStore
from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import WorkspaceKey
from tests.host.zfs_pool import ScratchPool, restart, scratch_pool, zfs

pytestmark = pytest.mark.host

MIB = 1024 * 1024
IN_KERNEL = Path("/dev/zfs").exists()
OWNER = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--")


@dataclass
class Bench:
    """A store of its own in a pool that several tests share."""

    store: ZfsWorkspaceStore
    pool: ScratchPool
    root: str
    mount_root: Path

    def another(self, commands: CommandDatasets) -> ZfsWorkspaceStore:
        """A store on the same datasets through the commands, as a second daemon would see them."""
        return command_store(
            self.pool.name, SystemClock(), root=self.root, mount_root=self.mount_root, commands=commands
        )


@pytest.fixture(scope="module")
def pool() -> Iterator[ScratchPool]:
    with scratch_pool() as made:
        yield made


@pytest.fixture(
    params=[
        "zfs commands",
        pytest.param("libzfs_core", marks=pytest.mark.skipif(not IN_KERNEL, reason="no /dev/zfs for libzfs_core")),
    ]
)
async def bench(request: pytest.FixtureRequest, pool: ScratchPool) -> Bench:
    name = uuid4().hex
    root, mount_root = f"{name}/workspaces", pool.directory / name
    make = command_store
    if request.param == "libzfs_core":
        found = await detect(pool.name)
        assert found.kind is ZfsKind.LIBZFS_CORE, found.reason
        make = core_store
    store = make(pool.name, SystemClock(), root=root, mount_root=mount_root)
    await store.prepare()
    return Bench(store, pool, root, mount_root)


def destroys(snapshot: str) -> bool:
    """Whether an operator's command can destroy it; it is gone then."""
    return subprocess.run(("zfs", "destroy", snapshot), capture_output=True, check=False).returncode == 0


def new_key() -> WorkspaceKey:
    return WorkspaceKey(uuid4(), uuid4())


def as_owner(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as the session's owner in a workspace."""
    return subprocess.run([*OWNER, *argv], cwd=cwd, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def occupied(path: Path) -> Iterator[None]:
    """Let a program have its working directory there."""
    program = subprocess.Popen(["sleep", "600"], cwd=path)
    try:
        yield
    finally:
        program.kill()
        program.wait()


def is_mounted(path: Path) -> bool:
    return path.is_mount()


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def prop(name: str, dataset: str) -> str:
    return zfs("get", "-Hp", "-o", "value", name, dataset).strip()


def options_of(path: Path) -> set[str]:
    """Options of the mount at a path."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(path):
            return set(fields[5].split(","))
    raise AssertionError(f"nothing is mounted at {path}")


async def test_a_workspace_belongs_to_its_session(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), 64 * MIB)
    assert is_mounted(workspace.path)
    assert owner_and_mode(workspace.path) == (1000, 1000, 0o700)
    assert as_owner("sh", "-c", "echo kept > file", cwd=workspace.path).returncode == 0
    assert (workspace.path / "file").read_text() == "kept\n"


async def test_only_workspaces_are_mounted(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    user = workspace.path.parent
    assert not is_mounted(user)
    assert not is_mounted(bench.mount_root)
    assert owner_and_mode(bench.mount_root) == (0, 0, 0o711)
    assert owner_and_mode(user)[:2] == (0, 0)
    assert prop("canmount", workspace.dataset.rpartition("/")[0]) == "off"


async def test_what_workspaces_inherit(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    found = {name: prop(name, workspace.dataset) for name in ("setuid", "devices", "exec", "atime", "mountpoint")}
    assert found == {
        "setuid": "off",
        "devices": "off",
        "exec": "on",
        "atime": "off",
        "mountpoint": str(workspace.path),
    }


async def test_the_default_mount_root_is_that_of_the_pools_name(pool: ScratchPool) -> None:
    root = uuid4().hex
    store = command_store(pool.name, SystemClock(), root=f"{root}/workspaces")
    await store.prepare()
    workspace = await store.create(new_key(), None)
    assert workspace.path.is_relative_to(Path("/", pool.name, root, "workspaces"))
    assert is_mounted(workspace.path)
    await store.discard(workspace.key)
    shutil.rmtree(Path("/", pool.name))


async def test_the_quota_is_enforced(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), 20 * MIB)
    filled = as_owner("dd", "if=/dev/urandom", "of=big", "bs=1M", "count=40", cwd=workspace.path)
    assert filled.returncode != 0
    assert "Disk quota exceeded" in filled.stderr
    assert 15 * MIB < (workspace.path / "big").stat().st_size <= 20 * MIB


async def test_without_a_quota_there_is_none(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    assert as_owner("dd", "if=/dev/urandom", "of=big", "bs=1M", "count=40", cwd=workspace.path).returncode == 0
    (workspace.path / "big").unlink()


async def test_a_snapshot_does_not_use_up_the_quota(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), 20 * MIB)
    fill = ("dd", "if=/dev/urandom", "of=big", "bs=1M", "count=15")
    assert as_owner(*fill, cwd=workspace.path).returncode == 0
    await bench.store.snapshot(workspace.key, "stop-1")
    (workspace.path / "big").unlink()
    assert as_owner(*fill, cwd=workspace.path).returncode == 0


async def test_a_snapshot_keeps_what_the_workspace_had(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    as_owner("sh", "-c", "mkdir code; echo first > code/model.py", cwd=workspace.path)
    taken = await bench.store.snapshot(workspace.key, "stop-1771304304293")
    as_owner("sh", "-c", "echo second > code/model.py; touch later", cwd=workspace.path)
    await bench.store.snapshot(workspace.key, taken.name)
    clone = f"{bench.pool.name}/{uuid4().hex}"
    place = bench.pool.directory / uuid4().hex
    zfs("clone", "-o", f"mountpoint={place}", taken.full_name, clone)
    try:
        assert (place / "code" / "model.py").read_text() == "first\n"
        assert not (place / "later").exists()
        assert owner_and_mode(place) == (1000, 1000, 0o700)
    finally:
        zfs("destroy", clone)


async def test_repairs_a_workspace_whose_creation_was_cut_off(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    (workspace.path / "file").write_text("kept")
    os.chown(workspace.path, 0, 0)
    workspace.path.chmod(0o755)
    assert await bench.store.create(workspace.key, None) == workspace
    assert owner_and_mode(workspace.path) == (1000, 1000, 0o700)
    assert (workspace.path / "file").read_text() == "kept"


async def test_mounts_what_is_not_mounted(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    (workspace.path / "file").write_text("kept")
    zfs("unmount", workspace.dataset)
    assert not (workspace.path / "file").exists()
    assert await bench.store.create(workspace.key, None) == workspace
    assert (workspace.path / "file").read_text() == "kept"
    assert options_of(workspace.path) >= {"nosuid", "nodev"}


async def test_workspaces_are_where_they_were_after_a_restart() -> None:
    """Exported and imported, as a host that was shut down and started finds its pool."""
    with scratch_pool() as pool:
        store = command_store(pool.name, SystemClock(), mount_root=pool.directory / "mounts")
        await store.prepare()
        workspace = await store.create(new_key(), 20 * MIB)
        assert as_owner("sh", "-c", "echo kept > file", cwd=workspace.path).returncode == 0
        taken = await store.snapshot(workspace.key, "stop-1")
        restart(pool)
        assert (workspace.path / "file").read_text() == "kept\n"
        again = command_store(pool.name, SystemClock(), mount_root=pool.directory / "mounts")
        await again.prepare()
        assert await again.keys() == (workspace.key,)
        assert await again.snapshots(workspace.key) == (taken,)
        assert await again.create(workspace.key, 20 * MIB) == workspace
        assert options_of(workspace.path) >= {"nosuid", "nodev"}


async def test_an_old_quota_stays(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), 20 * MIB)
    await bench.store.create(workspace.key, 40 * MIB)
    assert prop("refquota", workspace.dataset) == str(20 * MIB)


@pytest.mark.parametrize("quota_bytes", [1 << 70])
async def test_a_quota_that_zfs_refuses(bench: Bench, quota_bytes: int) -> None:
    key = new_key()
    with pytest.raises(WorkspaceError, match=r"cannot create workspace .*set workspaces\.quota_bytes"):
        await bench.store.create(key, quota_bytes)
    assert not await bench.store.exists(key)


async def test_a_mount_point_with_something_in_it_leaves_no_dataset(bench: Bench) -> None:
    if IN_KERNEL:
        pytest.skip("OpenZFS mounts over what is there (overlay=on)")
    key = new_key()
    (bench.store.locate(key).path / "in-the-way").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match=r"directory is not empty.*; empty or move away"):
        await bench.store.create(key, None)
    assert not await bench.store.exists(key)
    assert (bench.store.locate(key).path / "in-the-way").exists()


async def test_a_dataset_that_is_mounted_elsewhere_is_told_and_kept(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    elsewhere = bench.pool.directory / uuid4().hex
    zfs("set", f"mountpoint={elsewhere}", workspace.dataset)
    with pytest.raises(WorkspaceError, match="cannot create workspace"):
        await bench.store.create(workspace.key, None)
    assert await bench.store.exists(workspace.key)
    zfs("inherit", "mountpoint", workspace.dataset)
    assert await bench.store.create(workspace.key, None) == workspace


async def test_a_root_that_is_mounted_elsewhere_is_told(bench: Bench) -> None:
    other = command_store(bench.pool.name, SystemClock(), root=bench.root, mount_root=Path("/srv/elsewhere"))
    with pytest.raises(WorkspaceError, match=r"zfs set mountpoint=/srv/elsewhere .* while no session runs"):
        await other.prepare()


async def test_discarding_leaves_nothing(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    (workspace.path / "file").write_text("lost")
    await bench.store.discard(workspace.key)
    assert not workspace.path.exists()
    assert workspace.dataset not in zfs("list", "-H", "-o", "name", "-t", "filesystem")


async def test_what_is_restored_is_as_it_was_and_its_owners_with_a_quota_of_its_own(bench: Bench) -> None:
    source = await bench.store.create(new_key(), 64 * MIB)
    assert as_owner("sh", "-c", "echo thesis >file; chmod 640 file", cwd=source.path).returncode == 0
    await bench.store.snapshot(source.key, "stop-1")
    (source.path / "file").write_text("changed since")
    restored = await bench.store.restore(source.key, "stop-1", new_key(), 16 * MIB)
    assert (restored.path / "file").read_text() == "thesis\n"
    status = (restored.path / "file").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1000, 0o640)
    assert stat.S_IMODE(restored.path.stat().st_mode) == 0o700
    assert zfs("get", "-Hp", "-o", "value", "refquota", restored.dataset).strip() == str(16 * MIB)
    assert as_owner("sh", "-c", "echo more >>file", cwd=restored.path).returncode == 0
    assert (source.path / "file").read_text() == "changed since"
    # What stands on a snapshot keeps it, and what is let go leaves it.
    await bench.store.discard(restored.key)
    assert [snapshot.name for snapshot in await bench.store.snapshots(source.key)] == ["stop-1"]


async def test_a_rollback_brings_back_what_was_deleted(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    assert as_owner("sh", "-c", "echo kept >file", cwd=workspace.path).returncode == 0
    await bench.store.snapshot(workspace.key, "stop-1")
    (workspace.path / "file").unlink()
    (workspace.path / "later").touch()
    await bench.store.roll_back(workspace.key, "stop-1")
    assert sorted(path.name for path in workspace.path.iterdir()) == ["file"]
    assert (workspace.path / "file").read_text() == "kept\n"


async def test_a_held_snapshot_is_destroyed_by_nobody(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    await bench.store.snapshot(workspace.key, "stop-1")
    await bench.store.hold(workspace.key, "stop-1", "retention")
    assert not destroys(f"{workspace.dataset}@stop-1")
    await bench.store.release(workspace.key, "stop-1", "retention")
    assert destroys(f"{workspace.dataset}@stop-1")


async def test_a_busy_workspace_is_discarded_once_it_is_free(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    with occupied(workspace.path):
        discarding = asyncio.create_task(bench.store.discard(workspace.key))
        # Some attempts fail first.
        done, _ = await asyncio.wait({discarding}, timeout=0.5)
        assert done == set()
    await discarding
    assert not await bench.store.exists(workspace.key)


async def test_a_workspace_that_stays_busy_is_told(bench: Bench) -> None:
    store = bench.store
    workspace = await store.create(new_key(), None)
    (workspace.path / "file").write_text("kept")
    store._busy_seconds = 0.3
    with occupied(workspace.path):
        with pytest.raises(WorkspaceError, match=r"cannot discard workspace .* busy.*; see `fuser -vm`"):
            await store.discard(workspace.key)
        assert await store.exists(workspace.key)
    await store.create(workspace.key, None)
    assert (workspace.path / "file").read_text() == "kept"


async def test_what_is_not_mounted_is_not_empty(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    assert await bench.store.is_empty(workspace.key)
    assert as_owner("touch", ".hidden", cwd=workspace.path).returncode == 0
    assert not await bench.store.is_empty(workspace.key)
    zfs("unmount", workspace.dataset)
    assert not (workspace.path / ".hidden").exists()
    assert not await bench.store.is_empty(workspace.key)
    zfs("mount", workspace.dataset)
    (workspace.path / ".hidden").unlink()
    assert await bench.store.is_empty(workspace.key)
    zfs("unmount", workspace.dataset)
    assert not await bench.store.is_empty(workspace.key)


async def test_a_dataset_with_another_below_it_is_not_empty(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    zfs("create", "-o", "mountpoint=none", f"{workspace.dataset}/child")
    assert list(workspace.path.iterdir()) == []
    assert not await bench.store.is_empty(workspace.key)
    zfs("destroy", f"{workspace.dataset}/child")
    assert await bench.store.is_empty(workspace.key)


async def test_a_look_leads_nowhere_and_leaves_the_workspace_free(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    for _ in range(5):
        assert await bench.store.is_empty(workspace.key)
    zfs("unmount", workspace.dataset)  # it would be busy, were the directory still open
    with contextlib.suppress(FileNotFoundError):
        workspace.path.rmdir()
    empty = bench.pool.directory / uuid4().hex
    empty.mkdir()
    workspace.path.symlink_to(empty)
    assert not await bench.store.is_empty(workspace.key)
    workspace.path.unlink()
    zfs("mount", workspace.dataset)
    assert await bench.store.is_empty(workspace.key)


async def test_strangers_are_no_workspaces(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    root = f"{bench.pool.name}/{bench.root}"
    zfs("create", f"{root}/backup")
    zfs("create", f"{root}/{workspace.key.user_id}/notes")
    zfs("create", f"{workspace.dataset}/child")
    zfs("snapshot", f"{workspace.dataset}/child@stop-1")
    zfs("create", f"{bench.pool.name}/{uuid4().hex}")
    assert await bench.store.keys() == (workspace.key,)
    assert await bench.store.snapshots(workspace.key) == ()
    with pytest.raises(WorkspaceError, match="has children"):
        await bench.store.discard(workspace.key)


async def test_many_sessions_of_two_daemons_at_once(bench: Bench) -> None:
    """Two stores share no locks, so this is about ZFS and about taking what the other one has made."""
    stores = (bench.store, bench.another(host_commands()))
    users = [uuid4() for _ in range(4)]
    keys = [WorkspaceKey(user, uuid4()) for user in users for _ in range(3)]
    made = await asyncio.gather(*(store.create(key, None) for key in keys for store in stores), return_exceptions=True)
    problems = [each for each in made if isinstance(each, BaseException)]
    # One may find the other's dataset while it is not mounted yet; then it has to say so, and a second try succeeds.
    assert all(isinstance(problem, WorkspaceError) for problem in problems)
    for key in keys:
        workspace = await stores[1].create(key, None)
        assert owner_and_mode(workspace.path) == (1000, 1000, 0o700)
    assert set(await bench.store.keys()) == set(keys)


async def test_a_pool_that_does_not_exist() -> None:
    with pytest.raises(WorkspaceError, match=r"there is no pool mfws-absent \(pools: .*set workspaces\.pool"):
        await command_store("mfws-absent", SystemClock()).prepare()
    with pytest.raises(WorkspaceError, match="there is no pool mfws-absent"):
        await detect("mfws-absent")


async def test_a_daemon_that_is_down(bench: Bench) -> None:
    if IN_KERNEL:
        pytest.skip("ZFS in the kernel has no daemon")
    # In a mount namespace of its own the command finds no socket, as if the daemon were not running.
    alone = ("unshare", "--mount", "--", "sh", "-c", 'mount -t tmpfs none /run/zfs && exec "$0" "$@"')
    down = bench.another(CommandDatasets(zfs=(*alone, "zfs"), zpool=(*alone, "zpool")))
    for doing in (down.prepare(), down.create(new_key(), None), down.keys(), down.exists(new_key())):
        with pytest.raises(WorkspaceError, match=r"zfs-fuse daemon is running.*; load the module .* `zfs-fuse`"):
            await doing


async def test_a_command_that_does_not_answer(bench: Bench) -> None:
    stuck = bench.another(CommandDatasets(timeout_seconds=0.2, zfs=("sh", "-c", "sleep 600")))
    with pytest.raises(WorkspaceError, match=r"`sleep 600 create` did not end within 0\.2 s; see `zpool status -x`"):
        await stuck.create(new_key(), None)


async def test_setuid_programs_and_devices_mean_nothing(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    assert options_of(workspace.path) >= {"nosuid", "nodev"}
    assert not options_of(workspace.path) & {"noexec", "ro"}
    program = workspace.path / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    os.mknod(workspace.path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (workspace.path / "null").chmod(0o666)
    assert as_owner("./id", "-u", cwd=workspace.path).stdout == "1000\n"
    assert "Permission denied" in as_owner("sh", "-c", "echo > null", cwd=workspace.path).stderr
    # The same beside the workspace, where neither is forbidden: the test can fail.
    beside = bench.pool.directory / uuid4().hex
    beside.mkdir()
    shutil.copy("/usr/bin/id", beside / "id")
    (beside / "id").chmod(0o4755)
    os.mknod(beside / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (beside / "null").chmod(0o666)
    assert as_owner("./id", "-u", cwd=beside).stdout == "0\n"
    assert as_owner("sh", "-c", "echo > null", cwd=beside).returncode == 0


async def test_what_a_tenant_leaves_leads_root_nowhere(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    outside = bench.pool.directory / uuid4().hex
    outside.mkdir()
    outside.chmod(0o755)
    script = (
        f'ln -s {outside} out; ln -s / .snapshots; ln -s . loop; mkdir .zfs; touch -- -rf --help "$(printf "a\\nb")"; '
        "chmod 0777 ."
    )
    assert as_owner("sh", "-c", script, cwd=workspace.path).returncode in {0, 1}  # OpenZFS has a .zfs of its own
    assert await bench.store.create(workspace.key, None) == workspace
    assert owner_and_mode(workspace.path) == (1000, 1000, 0o700)
    assert owner_and_mode(outside) == (0, 0, 0o755)
    assert (workspace.path / "out").is_symlink()
    other = new_key()
    again = await bench.store.create(other, None)
    assert as_owner("sh", "-c", f"ln -s {outside} out; touch -- -rf", cwd=again.path).returncode == 0
    await bench.store.discard(other)
    assert owner_and_mode(outside) == (0, 0, 0o755)
    await bench.store.snapshot(workspace.key, "stop-1")
    assert (await bench.store.snapshots(workspace.key))[0].name == "stop-1"


async def test_a_tenant_cannot_move_its_workspace_away(bench: Bench) -> None:
    workspace = await bench.store.create(new_key(), None)
    for script in ("mv . ../elsewhere", "rmdir ../*", "ln -s /etc ../link", f"mv {workspace.path} /tmp/taken"):
        assert as_owner("sh", "-c", script, cwd=workspace.path).returncode != 0
    assert is_mounted(workspace.path)
    assert [entry.name for entry in os.scandir(workspace.path.parent)] == [str(workspace.key.session_id)]
