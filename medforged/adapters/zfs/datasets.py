"""Owns what the store needs done to datasets; `commands` and `core` are the two ways to do it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from medforged.adapters.zfs.listings import PoolState, SnapshotEntry

__all__ = ["Datasets"]


class Datasets(Protocol):
    """One operation each. All raise ZfsFailure, and nothing else."""

    async def pools(self) -> Sequence[PoolState]:
        """Every imported pool."""
        ...

    async def mountpoint(self, name: str) -> str:
        """The `mountpoint` property: a path, `none` or `legacy`. Raises MISSING."""
        ...

    async def create_root(self, name: str, mount_root: Path) -> None:
        """Make the root, with the properties that workspaces inherit. Raises EXISTS, PARENT_MISSING."""
        ...

    async def create_group(self, name: str) -> None:
        """Make a dataset that is never mounted and only holds others. Raises EXISTS, PARENT_MISSING."""
        ...

    async def create(self, name: str, quota_bytes: int | None) -> None:
        """Make a dataset and mount it where it inherits. Raises EXISTS, PARENT_MISSING.

        Raises MADE_NOT_MOUNTED when it was made but could not be mounted: then it is left, for the caller to destroy.
        """
        ...

    async def mount(self, name: str) -> None:
        """Mount a dataset that exists and is not mounted. Raises MISSING, NOT_MOUNTED."""
        ...

    async def exists(self, name: str) -> bool:
        """Whether there is a filesystem of this name."""
        ...

    async def snapshot(self, name: str, snapshot: str) -> None:
        """Raises EXISTS, MISSING."""
        ...

    async def snapshots(self, name: str) -> Sequence[SnapshotEntry]:
        """The dataset's own snapshots, oldest first. Raises MISSING."""
        ...

    async def clone(self, name: str, snapshot: str, target: str, quota_bytes: int | None) -> None:
        """Make a dataset with what a snapshot holds and mount it where it inherits. Raises as `create`, and MISSING."""
        ...

    async def roll_back(self, name: str, snapshot: str) -> None:
        """Make a dataset what it was at its newest snapshot, which has to be this one. Raises NOT_NEWEST, MISSING."""
        ...

    async def hold(self, name: str, snapshot: str, tag: str) -> None:
        """Raises EXISTS, MISSING."""
        ...

    async def release(self, name: str, snapshot: str, tag: str) -> None:
        """Raises MISSING."""
        ...

    async def destroy(self, name: str) -> None:
        """Unmount and destroy a dataset that has neither snapshots nor children. Raises MISSING, HAS_CHILDREN, BUSY."""
        ...

    async def filesystems(self, root: str, depth: int) -> Sequence[str]:
        """The root and every filesystem down to `depth` levels below it. Raises MISSING."""
        ...
