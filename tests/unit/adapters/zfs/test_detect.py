"""Which adapter serves, and when the daemon refuses to guess."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from medforged.adapters.process import CommandMissing
from medforged.adapters.zfs.commands import CommandDatasets
from medforged.adapters.zfs.core import LibZfsCore
from medforged.adapters.zfs.detect import ZfsKind, command_store, core_store, detect
from medforged.domain.errors import WorkspaceError
from tests.fakes.libzfs_core import Exceptions, FakeLibZfsCore
from tests.fakes.process import Answer, Recording, ScriptedRun
from tests.fakes.workspaces import SteppingClock

pytestmark = pytest.mark.unit

LIST = ("zpool", "list", "-H", "-o", "name,health")
ONE_POOL = Recording(LIST, 0, "tank\tONLINE\n", "")


def commands(recording: Recording | None = ONE_POOL) -> CommandDatasets:
    if recording is not None:
        return CommandDatasets(run=ScriptedRun([recording]))

    def missing(argv: tuple[str, ...]) -> Answer:
        return CommandMissing(argv, None, "", "", "cannot be started: No such file or directory")

    return CommandDatasets(run=ScriptedRun(answer=missing))


def library() -> LibZfsCore:
    return FakeLibZfsCore("tank")


def broken() -> LibZfsCore:
    fake = FakeLibZfsCore("tank")
    fake.fail("lzc_exists", Exceptions.ZFSInitializationFailed())
    return fake


def not_installed() -> LibZfsCore:
    raise ModuleNotFoundError("No module named 'libzfs_core'")


def without_c_library() -> LibZfsCore:
    raise OSError("ctypes.util.find_library() did not manage to locate a library called 'nvpair'")


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Stands for /dev/zfs."""
    path = tmp_path / "zfs"
    path.touch()
    return path


async def test_libzfs_core_where_it_sees_the_pool(device: Path) -> None:
    found = await detect("tank", commands=commands(), load=library, device=device)
    assert found.kind is ZfsKind.LIBZFS_CORE
    assert found.reason == "libzfs_core sees pool tank through /dev/zfs"


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (not_installed, r"libzfs_core is not installed \(python3-pyzfs\)"),
        (without_c_library, "libzfs_core failed: .*find_library"),
        (broken, "libzfs_core failed: .*Failed to initialize libzfs_core"),
        (lambda: FakeLibZfsCore("rpool"), "libzfs_core does not see that pool"),
    ],
)
async def test_the_command_where_libzfs_core_does_not_work(
    load: Callable[[], LibZfsCore], reason: str, device: Path
) -> None:
    found = await detect("tank", commands=commands(), load=load, device=device)
    assert found.kind is ZfsKind.COMMANDS
    assert re.search(reason, found.reason)


async def test_the_command_without_a_kernel_module(tmp_path: Path) -> None:
    found = await detect("tank", commands=commands(), load=not_installed, device=tmp_path / "absent")
    assert found.kind is ZfsKind.COMMANDS
    assert "no /dev/zfs" in found.reason


async def test_none_on_a_host_without_zfs(tmp_path: Path) -> None:
    found = await detect("tank", commands=commands(None), load=not_installed, device=tmp_path / "absent")
    assert found.kind is ZfsKind.NONE
    assert found.reason.startswith("this host has no ZFS")


@pytest.mark.parametrize("kernel", [True, False])
async def test_a_pool_that_does_not_exist_is_never_replaced_by_directories(kernel: bool, device: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"no pool data \(pools: tank\).*zpool create data .*set workspaces\.pool"):
        await detect("data", commands=commands(), load=library, device=device if kernel else device / "absent")


async def test_zfs_that_does_not_answer_is_never_replaced_by_directories(tmp_path: Path) -> None:
    said = "The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.\n"
    with pytest.raises(WorkspaceError, match=r'modprobe zfs.*or set adapters\.workspaces = "directories"'):
        await detect("tank", commands=commands(Recording(LIST, 1, "", said)), device=tmp_path / "absent")


async def test_a_module_without_its_commands_is_no_host_without_zfs(device: Path) -> None:
    with pytest.raises(WorkspaceError, match="install zfsutils-linux"):
        await detect("tank", commands=commands(None), load=library, device=device)


def test_stores_say_what_they_are() -> None:
    clock = SteppingClock()
    by_command = command_store("tank", clock, reason="there is no /dev/zfs")
    assert (by_command.describe().adapter, by_command.describe().reason) == ("zfs-commands", "there is no /dev/zfs")
    assert by_command.describe().real
    assert by_command.root == "tank/medforge/workspaces"
    assert core_store("tank", clock, load=library).describe().adapter == "libzfs_core"


@pytest.mark.parametrize("load", [not_installed, without_c_library])
def test_a_configured_libzfs_core_has_to_be_there(load: Callable[[], LibZfsCore]) -> None:
    with pytest.raises(WorkspaceError, match=r"install python3-pyzfs, .*adapters\.workspaces"):
        core_store("tank", SteppingClock(), load=load)
