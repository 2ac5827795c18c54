"""Owns where workspaces are in a pool and on the host: names and paths from keys, and keys from names.

    <pool>/<root>                          canmount=off, mountpoint=<mount root>
    <pool>/<root>/<user_id>                canmount=off
    <pool>/<root>/<user_id>/<session_id>   the workspace; mounted where it inherits from the root

Only workspaces are ever mounted. A user's dataset groups them and inherits a mount point that nothing uses: if it
were mounted too, a mount that comes late (two first sessions of one user, a boot) would cover the workspaces below.
Since a workspace inherits its mount point, one `zfs set mountpoint` on the root moves all of them, and ZFS removes
the directory itself when it destroys the dataset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import Workspace, WorkspaceKey

__all__ = ["Layout"]

# ZFS_MAX_DATASET_NAME_LEN is 256 with its terminating zero. Below the root come two UUIDs with their slashes (74)
# and `@` with a snapshot's name (at most 101, domain.workspaces.is_snapshot_name).
_MAX_ROOT = 255 - 74 - 101
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


@dataclass(frozen=True, slots=True)
class Layout:
    """One root dataset and the directory that it is mounted under. Raises WorkspaceError for impossible names."""

    pool: str
    root: str
    mount_root: Path

    def __post_init__(self) -> None:
        if not all(_COMPONENT.fullmatch(part) for part in self.root_dataset.split("/")):
            raise WorkspaceError(
                f"cannot use {self.root_dataset} for workspaces: it is not a dataset's name; "
                "set workspaces.pool and workspaces.root to letters, digits and _.:- (the root with slashes)"
            )
        if len(self.root_dataset) > _MAX_ROOT:
            raise WorkspaceError(
                f"cannot use {self.root_dataset} for workspaces: its name has more than {_MAX_ROOT} characters, "
                "so snapshots of workspaces would pass ZFS's limit of 255; set a shorter workspaces.root"
            )
        if not self.mount_root.is_absolute() or ".." in self.mount_root.parts:
            raise WorkspaceError(
                f"cannot mount workspaces at {self.mount_root}: it is not an absolute path; set workspaces.mount_root"
            )

    @classmethod
    def of(cls, pool: str, root: str, mount_root: Path | None) -> Layout:
        """With the default mount root where none is given: `/<pool>/<root>`, where ZFS itself would mount it."""
        return cls(pool, root, mount_root or Path("/", pool, root))

    @property
    def root_dataset(self) -> str:
        return f"{self.pool}/{self.root}"

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The datasets between the pool and the root, from the top."""
        parts = self.root_dataset.split("/")
        return tuple("/".join(parts[:length]) for length in range(2, len(parts)))

    def workspace(self, key: WorkspaceKey) -> Workspace:
        return Workspace(key, f"{self.root_dataset}/{key.relative}", self.mount_root / key.relative)

    def user_dataset(self, key: WorkspaceKey) -> str:
        return f"{self.root_dataset}/{key.user_id}"

    def mount_path(self, dataset: str) -> Path:
        """Where a dataset below the root is mounted. Raises ValueError for one that is not below it."""
        return self.mount_root / Path(dataset).relative_to(self.root_dataset)

    def key(self, dataset: str) -> WorkspaceKey | None:
        """The key whose workspace has this name; None where it is anything else."""
        prefix = f"{self.root_dataset}/"
        return WorkspaceKey.parse(dataset.removeprefix(prefix)) if dataset.startswith(prefix) else None
