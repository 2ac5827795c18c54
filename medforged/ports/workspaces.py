"""Owns what the daemon needs from workspace storage."""

from __future__ import annotations

from typing import Protocol

from medforged.domain.adapters import AdapterDescription
from medforged.domain.workspaces import Snapshot, Workspace, WorkspaceKey

__all__ = ["WorkspaceStore"]


class WorkspaceStore(Protocol):
    """Workspaces and their snapshots. All operations are idempotent and raise WorkspaceError."""

    def describe(self) -> AdapterDescription: ...

    def locate(self, key: WorkspaceKey) -> Workspace:
        """The name and mount point that this key has, whether or not it exists. Does no I/O."""
        ...

    async def prepare(self) -> None:
        """Make the root under which workspaces live; called once at start.

        Raises WorkspaceError with a remedy when the pool or directory cannot be used.
        """
        ...

    async def create(self, key: WorkspaceKey, quota_bytes: int | None) -> Workspace:
        """Create and mount an empty workspace owned by 1000:1000 mode 0700; one that exists is mounted and returned.

        A quota is set at creation; None means unlimited. On failure nothing is left behind.
        """
        ...

    async def exists(self, key: WorkspaceKey) -> bool: ...

    async def snapshot(self, key: WorkspaceKey, name: str) -> Snapshot:
        """Take snapshot `name` (see `snapshot_name`); one of that name that exists is returned unchanged."""
        ...

    async def snapshots(self, key: WorkspaceKey) -> tuple[Snapshot, ...]:
        """The workspace's snapshots, oldest first; empty when the workspace does not exist."""
        ...

    async def restore(
        self, source: WorkspaceKey, name: str, target: WorkspaceKey, quota_bytes: int | None
    ) -> Workspace:
        """Make `target` with what snapshot `name` of `source` holds, mounted and owned as by `create`.

        A target that exists is mounted and returned as it is. On failure nothing is left behind.
        """
        ...

    async def roll_back(self, key: WorkspaceKey, name: str) -> None:
        """Make the workspace what it was at its newest snapshot, which has to be `name`; what came after it is lost."""
        ...

    async def hold(self, key: WorkspaceKey, name: str, tag: str) -> None:
        """Let nobody destroy snapshot `name` until `release` with the same tag (see `is_hold_tag`)."""
        ...

    async def release(self, key: WorkspaceKey, name: str, tag: str) -> None:
        """Take a hold away. Without such a hold or snapshot: no error."""
        ...

    async def is_empty(self, key: WorkspaceKey) -> bool:
        """Whether it has neither snapshots nor anything in it. Absent: True. What cannot be looked into is not."""
        ...

    async def discard(self, key: WorkspaceKey) -> None:
        """Destroy a workspace that was created for a session that never became ready. Absent: no error.

        Refuses (WorkspaceError) when the workspace has snapshots, so that it can never destroy kept work.
        """
        ...

    async def keys(self) -> tuple[WorkspaceKey, ...]:
        """Every workspace under the root whose name is a key; anything else there is ignored."""
        ...
