"""Owns whether workspaces have a file system that keeps what people make."""

from __future__ import annotations

from medforged.adapters.zfs.detect import ZfsKind, detect, host_commands
from medforged.adapters.zfs.problems import ZfsFailure
from medforged.config import Settings
from medforged.contract.doctor import Examination, Kind, failed, fine, skipped, warning
from medforged.domain.errors import WorkspaceError

__all__ = ["examine_storage"]

_INSTALL = "install zfsutils-linux and zfs-dkms (Debian: section contrib), and `modprobe zfs`"


async def examine_storage(settings: Settings) -> list[Examination]:
    """ZFS, its pool, and which way MedForge goes to it."""
    wanted, pool = settings.adapters.workspaces, settings.workspaces.pool
    if wanted in ("simulated", "directories"):
        return [skipped(Kind.HOST, "ZFS", f'workspaces are {wanted} here (adapters.workspaces = "{wanted}")')]
    try:
        seen = await detect(pool)
    except WorkspaceError as error:
        remedy = (
            "create or import the pool, or name yours in workspaces.pool; `zpool import` shows what can be imported"
        )
        return [failed(Kind.HOST, "ZFS", str(error), remedy)]
    match seen.kind:
        case ZfsKind.NONE:
            remedy = f"{_INSTALL}; without it workspaces have no quota and no snapshots that cannot change"
            return [failed(Kind.HOST, "ZFS", seen.reason, remedy)]
        case ZfsKind.COMMANDS:
            remedy = "install python3-pyzfs and run deploy/install again, so that no command is started for each step"
            return [warning(Kind.HOST, "ZFS", seen.reason, remedy), await _pool(pool)]
        case ZfsKind.LIBZFS_CORE:
            return [fine(Kind.HOST, "ZFS", seen.reason), await _pool(pool)]


async def _pool(name: str) -> Examination:
    subject = f"pool {name}"
    try:
        health = {pool.name: pool.health for pool in await host_commands().pools()}.get(name, "unknown")
    except ZfsFailure as failure:
        return failed(Kind.HOST, subject, failure.advice, "see `zpool status`")
    match health:
        case "ONLINE":
            return fine(Kind.HOST, subject, "ONLINE")
        case "DEGRADED":
            return warning(Kind.HOST, subject, "DEGRADED: redundancy is lost, data are not", "see `zpool status -x`")
        case _:
            return failed(Kind.HOST, subject, f"{health}: nothing can be written", "see `zpool status -x`")
