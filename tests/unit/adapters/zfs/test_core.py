"""Datasets through libzfs_core: calls and errors over a recording fake. The conformance suite runs on the kernel's ZFS."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import inspect
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from medforged.adapters.zfs.commands import CommandDatasets
from medforged.adapters.zfs.core import CoreDatasets
from medforged.adapters.zfs.layout import Layout
from medforged.adapters.zfs.problems import ZfsFailure, ZfsProblem
from tests.fakes.libzfs_core import Exceptions, FakeLibZfsCore
from tests.fakes.process import Recording, ScriptedRun
from tests.fakes.workspaces import workspace_key
from tests.fakes.zfs import FakeMounts, not_empty

pytestmark = pytest.mark.unit

KEY = workspace_key(1)
ROOT = "tank/medforge/workspaces"
USER = f"{ROOT}/{KEY.user_id}"
NAME = f"{ROOT}/{KEY.relative}"


@dataclass
class Bench:
    """The adapter over a fake library whose pool has the root and one user."""

    datasets: CoreDatasets
    library: FakeLibZfsCore
    run: ScriptedRun
    mounts: FakeMounts
    layout: Layout


def bench(tmp_path: Path, *recordings: Recording, timeout_seconds: float = 10.0) -> Bench:
    layout = Layout.of("tank", "medforge/workspaces", tmp_path)
    library, run, mounts = FakeLibZfsCore("tank", "tank/medforge", ROOT, USER), ScriptedRun(recordings), FakeMounts()
    datasets = CoreDatasets(layout, library, CommandDatasets(run=run), mounts, timeout_seconds=timeout_seconds)
    return Bench(datasets, library, run, mounts, layout)


@pytest.fixture
def made(tmp_path: Path) -> Bench:
    return bench(tmp_path)


async def test_creates_with_native_properties_and_mounts(made: Bench) -> None:
    await made.datasets.create(NAME, 5 * 1024**3)
    assert made.library.calls == [("lzc_create", NAME.encode(), "zfs", {b"refquota": 5 * 1024**3})]
    path = made.layout.workspace(KEY).path
    assert made.mounts.mounted[path].source == NAME
    assert made.run.calls == []


async def test_without_a_quota_none_is_set(made: Bench) -> None:
    await made.datasets.create(NAME, None)
    assert made.library.calls == [("lzc_create", NAME.encode(), "zfs", {})]


async def test_a_group_is_never_mounted(made: Bench) -> None:
    await made.datasets.create_group(f"{ROOT}/other")
    assert made.library.calls == [("lzc_create", f"{ROOT}/other".encode(), "zfs", {b"canmount": 0})]
    assert made.mounts.mounted == {}


async def test_what_cannot_be_mounted_was_made(made: Bench) -> None:
    made.mounts.error = not_empty()
    with pytest.raises(ZfsFailure, match=r"cannot mount it at .*Directory not empty") as caught:
        await made.datasets.create(NAME, None)
    assert caught.value.problem is ZfsProblem.MADE_NOT_MOUNTED


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (Exceptions.FilesystemExists(b"x"), ZfsProblem.EXISTS),
        (Exceptions.ParentNotFound(b"x"), ZfsProblem.PARENT_MISSING),
        (Exceptions.PropertyInvalid(b"x"), ZfsProblem.BAD_PROPERTY),
        (Exceptions.NameTooLong(b"x"), ZfsProblem.NAME_TOO_LONG),
        (Exceptions.NoSpace(b"x"), ZfsProblem.NO_SPACE),
        (Exceptions.SuspendedPool(b"x"), ZfsProblem.SUSPENDED),
        (Exceptions.ZFSError(b"x"), ZfsProblem.OTHER),
    ],
)
async def test_errors_of_a_creation(made: Bench, error: Exceptions.ZFSError, problem: ZfsProblem) -> None:
    made.library.fail("lzc_create", error)
    with pytest.raises(ZfsFailure, match=r"libzfs_core: .* \(errno \d+\)$") as caught:
        await made.datasets.create(NAME, None)
    assert caught.value.problem is problem
    assert made.mounts.mounted == {}


async def test_a_quota_that_is_no_number_of_the_kernels(made: Bench) -> None:
    with pytest.raises(ZfsFailure, match="int too big to convert") as caught:
        await made.datasets.create(NAME, 1 << 70)
    assert caught.value.problem is ZfsProblem.BAD_PROPERTY


async def test_snapshots(made: Bench) -> None:
    await made.datasets.create(NAME, None)
    await made.datasets.snapshot(NAME, "stop-2")
    await made.datasets.snapshot(NAME, "stop-1")
    assert ("lzc_snapshot", (f"{NAME}@stop-2".encode(),)) in made.library.calls
    assert [entry.name for entry in await made.datasets.snapshots(NAME)] == ["stop-2", "stop-1"]
    function, pool, parameters, *_ = made.library.calls[-1]
    assert (function, pool, parameters) == ("lzc_channel_program_nosync", b"tank", (NAME.encode(),))


async def test_errors_of_a_snapshot(made: Bench) -> None:
    await made.datasets.create(NAME, None)
    await made.datasets.snapshot(NAME, "stop-1")
    with pytest.raises(ZfsFailure) as caught:
        await made.datasets.snapshot(NAME, "stop-1")
    assert caught.value.problem is ZfsProblem.EXISTS
    with pytest.raises(ZfsFailure) as caught:
        await made.datasets.snapshot(f"{USER}/absent", "stop-1")
    assert caught.value.problem is ZfsProblem.MISSING


async def test_clones_a_snapshot_with_a_quota_and_mounts_it(made: Bench) -> None:
    await made.datasets.create(NAME, None)
    await made.datasets.snapshot(NAME, "stop-1")
    await made.datasets.clone(NAME, "stop-1", f"{USER}/other", 5 * 1024**3)
    assert made.library.calls[-1] == (
        "lzc_clone", f"{USER}/other".encode(), f"{NAME}@stop-1".encode(), {b"refquota": 5 * 1024**3},
    )  # fmt: skip
    assert f"{USER}/other" in {mount.source for mount in made.mounts.mounted.values()}


async def test_errors_of_a_clone(made: Bench) -> None:
    await made.datasets.create(NAME, None)
    await made.datasets.snapshot(NAME, "stop-1")
    for snapshot, target, problem in (
        ("stop-9", f"{USER}/other", ZfsProblem.MISSING),
        ("stop-1", f"{ROOT}/nobody/other", ZfsProblem.PARENT_MISSING),
        ("stop-1", NAME, ZfsProblem.EXISTS),
    ):
        with pytest.raises(ZfsFailure) as caught:
            await made.datasets.clone(NAME, snapshot, target, None)
        assert caught.value.problem is problem
    made.mounts.error = not_empty()
    with pytest.raises(ZfsFailure) as caught:
        await made.datasets.clone(NAME, "stop-1", f"{USER}/other", None)
    assert caught.value.problem is ZfsProblem.MADE_NOT_MOUNTED


async def test_rolls_back_to_the_newest_snapshot_alone(made: Bench) -> None:
    await made.datasets.create(NAME, None)
    for snapshot in ("stop-1", "stop-2"):
        await made.datasets.snapshot(NAME, snapshot)
    await made.datasets.roll_back(NAME, "stop-2")
    assert made.library.calls[-1] == ("lzc_rollback_to", NAME.encode(), f"{NAME}@stop-2".encode())
    for snapshot, problem in (("stop-1", ZfsProblem.NOT_NEWEST), ("stop-9", ZfsProblem.MISSING)):
        with pytest.raises(ZfsFailure) as caught:
            await made.datasets.roll_back(NAME, snapshot)
        assert caught.value.problem is problem


async def test_a_hold_outlives_the_process_and_is_released_by_its_tag(made: Bench) -> None:
    await made.datasets.create(NAME, None)
    await made.datasets.snapshot(NAME, "stop-1")
    await made.datasets.hold(NAME, "stop-1", "retention")
    # Without a descriptor, with whose end the kernel would release it.
    assert made.library.calls[-1] == ("lzc_hold", {f"{NAME}@stop-1".encode(): b"retention"}, None)
    for snapshot, problem in (("stop-1", ZfsProblem.EXISTS), ("stop-9", ZfsProblem.MISSING)):
        with pytest.raises(ZfsFailure) as caught:
            await made.datasets.hold(NAME, snapshot, "retention")
        assert caught.value.problem is problem
    await made.datasets.release(NAME, "stop-1", "retention")
    with pytest.raises(ZfsFailure) as caught:
        await made.datasets.release(NAME, "stop-1", "retention")
    assert caught.value.problem is ZfsProblem.MISSING


async def test_listing_what_does_not_exist(made: Bench) -> None:
    for listing in (made.datasets.snapshots(NAME), made.datasets.filesystems(f"{ROOT}/absent", 2)):
        with pytest.raises(ZfsFailure) as caught:
            await listing
        assert caught.value.problem is ZfsProblem.MISSING
    assert not await made.datasets.exists(NAME)


async def test_a_pool_that_does_not_answer_is_no_pool_without_workspaces(made: Bench) -> None:
    await made.datasets.create(NAME, None)
    for doing in (made.datasets.exists(NAME), made.datasets.snapshots(NAME), made.datasets.filesystems(ROOT, 2)):
        made.library.fail("lzc_channel_program_nosync", Exceptions.SuspendedPool(b"tank"))
        with pytest.raises(ZfsFailure, match="Pool is suspended") as caught:
            await doing
        assert caught.value.problem is ZfsProblem.SUSPENDED


async def test_filesystems_to_a_depth(made: Bench) -> None:
    await made.datasets.create(NAME, None)
    made.library.datasets[f"{NAME}/child".encode()] = {}
    made.library.datasets[f"{USER}/volume".encode()] = {}
    made.library.volumes.add(f"{USER}/volume".encode())
    assert await made.datasets.filesystems(ROOT, 2) == [ROOT, USER, NAME]
    assert await made.datasets.exists(NAME)


async def test_a_call_that_does_not_return(tmp_path: Path) -> None:
    made, gate = bench(tmp_path, timeout_seconds=0.05), threading.Event()

    def wait(snaps: Sequence[bytes]) -> None:
        gate.wait()

    made.library.lzc_snapshot = wait  # type: ignore[method-assign]  # a fake's method
    with pytest.raises(ZfsFailure, match=r"libzfs_core did not answer within 0\.05 s") as caught:
        await made.datasets.snapshot(NAME, "stop-1")
    gate.set()
    assert caught.value.problem is ZfsProblem.STUCK


async def test_what_is_left_goes_through_the_command(tmp_path: Path) -> None:
    argvs = (
        ("zpool", "list", "-H", "-o", "name,health"),
        ("zfs", "get", "-H", "-o", "value", "mountpoint", ROOT),
        ("zfs", "mount", NAME),
        ("zfs", "destroy", NAME),
    )
    made = bench(tmp_path, *(Recording(argv, 0, "tank\tONLINE\n", "") for argv in argvs))
    await made.datasets.pools()
    await made.datasets.mountpoint(ROOT)
    await made.datasets.mount(NAME)
    await made.datasets.destroy(NAME)
    assert made.run.calls == list(argvs)
    assert made.library.calls == []


@pytest.mark.skipif(importlib.util.find_spec("libzfs_core") is None, reason="python3-pyzfs is not installed")
def test_the_fake_has_the_names_and_parameters_of_the_real_module() -> None:
    real = importlib.import_module("libzfs_core")
    for name in (
        "lzc_create",
        "lzc_exists",
        "lzc_snapshot",
        "lzc_clone",
        "lzc_rollback_to",
        "lzc_hold",
        "lzc_release",
        "lzc_channel_program_nosync",
    ):
        fake_parameters = list(inspect.signature(getattr(FakeLibZfsCore, name)).parameters)[1:]
        assert list(inspect.signature(getattr(real, name)).parameters)[: len(fake_parameters)] == fake_parameters
    for name, error in vars(Exceptions).items():
        if isinstance(error, type) and getattr(error, "errno", 0):
            assert issubclass(getattr(real.exceptions, name), real.exceptions.ZFSError)
            if name != "ZFSInitializationFailed":  # its number is that of the failure
                assert getattr(real.exceptions, name).errno == error.errno
    assert real.exceptions.SnapshotFailure([real.exceptions.SnapshotExists(b"x")], 0).errno == errno.EEXIST
