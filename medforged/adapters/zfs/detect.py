"""Owns the question which ZFS this host has, and the stores for it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

from medforged.adapters.blocking import BlockingCalls, CallTimedOut
from medforged.adapters.owned_directory import SESSION_OWNER, Owner
from medforged.adapters.zfs.commands import CommandDatasets
from medforged.adapters.zfs.core import CoreDatasets, LibZfsCore
from medforged.adapters.zfs.layout import Layout
from medforged.adapters.zfs.mounts import SystemMounts
from medforged.adapters.zfs.problems import ZfsFailure, ZfsProblem, no_such_pool
from medforged.adapters.zfs.store import ZfsWorkspaceStore
from medforged.domain.errors import WorkspaceError
from medforged.ports.clock import Clock

__all__ = [
    "Detection",
    "ZfsKind",
    "command_store",
    "core_store",
    "detect",
    "host_commands",
    "load_library",
]

_DEVICE = Path("/dev/zfs")


class ZfsKind(StrEnum):
    """What can serve workspaces here."""

    LIBZFS_CORE = "libzfs_core"
    COMMANDS = "commands"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found, and why in one sentence, for AdapterDescription.reason."""

    kind: ZfsKind
    reason: str


def host_commands(*, timeout_seconds: float = 30.0, device: Path = _DEVICE) -> CommandDatasets:
    """The commands as this host needs them: in turns where ZFS is in user space."""
    return CommandDatasets(timeout_seconds=timeout_seconds, in_turns=not device.exists())


def load_library() -> LibZfsCore:
    """The module. Raises ImportError, or OSError where the C library behind it is missing."""
    return cast("LibZfsCore", importlib.import_module("libzfs_core"))


async def detect(
    pool: str,
    *,
    commands: CommandDatasets | None = None,
    load: Callable[[], LibZfsCore] = load_library,
    device: Path = _DEVICE,
    timeout_seconds: float = 30.0,
) -> Detection:
    """Which adapter can serve workspaces in `pool`; NONE only where this host has no ZFS at all.

    Raises WorkspaceError where ZFS is installed and does not answer, or answers and has no such pool: then workspaces
    may be in it already, and a store of plain directories beside them would show every person an empty one.
    """
    kernel = await asyncio.to_thread(device.exists)
    try:
        pools = await (commands or host_commands(timeout_seconds=timeout_seconds)).pools()
    except ZfsFailure as failure:
        if failure.problem is ZfsProblem.NOT_INSTALLED and not kernel:
            return Detection(ZfsKind.NONE, "this host has no ZFS: there is no zpool command and no /dev/zfs")
        raise WorkspaceError(
            f'cannot use pool {pool} for workspaces: {failure.advice}; or set adapters.workspaces = "directories"'
        ) from failure
    names = [found.name for found in pools]
    if pool not in names:
        raise WorkspaceError(f"cannot use pool {pool} for workspaces: {no_such_pool(pool, names)}")
    if not kernel:
        return Detection(ZfsKind.COMMANDS, f"ZFS in user space has pool {pool}; there is no /dev/zfs for libzfs_core")
    return await _try_library(pool, load, timeout_seconds)


async def _try_library(pool: str, load: Callable[[], LibZfsCore], timeout_seconds: float) -> Detection:
    """Ask libzfs_core itself for the pool: its C library is loaded, and the kernel opened, at the first call only."""

    def look() -> bool:
        library = load()
        try:
            return library.lzc_exists(pool.encode())
        except library.exceptions.ZFSError as error:
            raise OSError(str(error)) from error

    try:
        found = await BlockingCalls("libzfs_core", limit=1, timeout_seconds=timeout_seconds).run(look)
    except ImportError:
        return Detection(
            ZfsKind.COMMANDS,
            f"pool {pool} is served by the zfs command: libzfs_core is not installed (python3-pyzfs), "
            "or the virtual environment does not see the system's packages",
        )
    except (OSError, AttributeError, CallTimedOut) as error:
        return Detection(ZfsKind.COMMANDS, f"pool {pool} is served by the zfs command: libzfs_core failed: {error}")
    if not found:
        return Detection(
            ZfsKind.COMMANDS, f"pool {pool} is served by the zfs command: libzfs_core does not see that pool"
        )
    return Detection(ZfsKind.LIBZFS_CORE, f"libzfs_core sees pool {pool} through /dev/zfs")


def command_store(
    pool: str,
    clock: Clock,
    *,
    root: str = "medforge/workspaces",
    mount_root: Path | None = None,
    reason: str = "configured",
    owner: Owner = SESSION_OWNER,
    timeout_seconds: float = 30.0,
    commands: CommandDatasets | None = None,
) -> ZfsWorkspaceStore:
    """Workspaces through the `zfs` command. Raises WorkspaceError for names that cannot be."""
    return ZfsWorkspaceStore(
        Layout.of(pool, root, mount_root),
        commands or host_commands(timeout_seconds=timeout_seconds),
        SystemMounts(),
        clock,
        adapter="zfs-commands",
        reason=reason,
        owner=owner,
        timeout_seconds=timeout_seconds,
    )


def core_store(
    pool: str,
    clock: Clock,
    *,
    root: str = "medforge/workspaces",
    mount_root: Path | None = None,
    reason: str = "configured",
    owner: Owner = SESSION_OWNER,
    timeout_seconds: float = 30.0,
    load: Callable[[], LibZfsCore] = load_library,
) -> ZfsWorkspaceStore:
    """Workspaces through libzfs_core. Raises WorkspaceError for names that cannot be, or without the library."""
    layout, mounts = Layout.of(pool, root, mount_root), SystemMounts()
    try:
        library = load()
    except (ImportError, OSError) as error:
        raise WorkspaceError(
            f"cannot use libzfs_core: {error}; install python3-pyzfs, and make the virtual environment with "
            '--system-site-packages, or set adapters.workspaces = "zfs"'
        ) from error
    commands = host_commands(timeout_seconds=timeout_seconds)
    datasets = CoreDatasets(layout, library, commands, mounts, timeout_seconds=timeout_seconds)
    return ZfsWorkspaceStore(
        layout,
        datasets,
        mounts,
        clock,
        adapter="libzfs_core",
        reason=reason,
        owner=owner,
        timeout_seconds=timeout_seconds,
    )
