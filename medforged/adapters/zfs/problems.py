"""Owns the ways in which ZFS fails, whichever adapter it was called through, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

__all__ = ["ZfsFailure", "ZfsProblem", "no_such_pool"]


class ZfsProblem(StrEnum):
    """What went wrong, as far as anything depends on it."""

    EXISTS = "exists"
    MISSING = "missing"
    PARENT_MISSING = "parent-missing"
    BUSY = "busy"
    HAS_CHILDREN = "has-children"
    NOT_MOUNTED = "not-mounted"
    NOT_NEWEST = "not-newest"
    MADE_NOT_MOUNTED = "made-not-mounted"  # this very call made the dataset, which therefore holds nothing yet
    NO_SPACE = "no-space"
    BAD_PROPERTY = "bad-property"
    NAME_TOO_LONG = "name-too-long"
    READ_ONLY = "read-only"
    SUSPENDED = "suspended"
    DENIED = "denied"
    NOT_INSTALLED = "not-installed"
    UNREACHABLE = "unreachable"
    STUCK = "stuck"
    OTHER = "other"


_REMEDIES = {
    ZfsProblem.MISSING: "see `zfs list -r`",
    ZfsProblem.PARENT_MISSING: "restart medforged, which makes the root of the workspaces again",
    ZfsProblem.BUSY: "see `fuser -vm` on its mount point for who uses it, end that, and try again",
    ZfsProblem.HAS_CHILDREN: "see `zfs list -r -t all`; only an operator destroys snapshots",
    ZfsProblem.NOT_NEWEST: "restore it into another workspace instead, which loses nothing",
    ZfsProblem.NOT_MOUNTED: "empty or move away the directory at its mount point, or correct its mountpoint property",
    ZfsProblem.MADE_NOT_MOUNTED: "empty or move away the directory at its mount point",
    ZfsProblem.NO_SPACE: "free space in the pool (old snapshots first: `zfs list -t snapshot -s used`) or add a device",
    ZfsProblem.BAD_PROPERTY: "set workspaces.quota_bytes to a size that this pool accepts",
    ZfsProblem.NAME_TOO_LONG: "set a shorter workspaces.root",
    ZfsProblem.READ_ONLY: "the pool was imported read-only; export it and import it without `readonly=on`",
    ZfsProblem.SUSPENDED: "see `zpool status -x`, bring the device back, then `zpool clear`",
    ZfsProblem.DENIED: "run medforged as root with CAP_SYS_ADMIN",
    ZfsProblem.NOT_INSTALLED: "install zfsutils-linux",
    ZfsProblem.UNREACHABLE: "load the module with `modprobe zfs`, or start ZFS in user space with `zfs-fuse`",
    ZfsProblem.STUCK: "see `zpool status -x`: a suspended pool makes every command wait",
    ZfsProblem.OTHER: "see `zpool status -x` and the journal",
}


class ZfsFailure(Exception):
    """ZFS refused or failed. `said` is its own message, on one line. Stays inside this package."""

    def __init__(self, problem: ZfsProblem, said: str) -> None:
        super().__init__(f"{problem}: {said}")
        self.problem = problem
        self.said = said

    @property
    def advice(self) -> str:
        """`<what ZFS said>; <what to do>`, the second half of a message to people."""
        remedy = _REMEDIES.get(self.problem)
        return f"{self.said}; {remedy}" if remedy else self.said


def no_such_pool(pool: str, pools: Iterable[str]) -> str:
    """The second half of a message to people: which pools there are, and how to come by this one."""
    return (
        f"there is no pool {pool} (pools: {', '.join(sorted(pools)) or 'none'}); make it with "
        f"`zpool create {pool} DEVICE…`, import it with `zpool import {pool}`, or set workspaces.pool"
    )
