"""Owns how workspaces and their snapshots are named and what is known about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from uuid import UUID

__all__ = [
    "OWNER_GID",
    "OWNER_UID",
    "Snapshot",
    "SnapshotKind",
    "Workspace",
    "WorkspaceKey",
    "is_hold_tag",
    "is_snapshot_name",
    "snapshot_name",
]

# contract.md section 3: workspaces and session processes belong to 1000:1000.
OWNER_UID = 1000
OWNER_GID = 1000

# Safe as a part of a dataset's name, as a file name and as an argument; never hidden, never an option.
_SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
_HOLD_TAG = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class SnapshotKind(StrEnum):
    """Why a snapshot was taken; the first part of its name."""

    STOP = "stop"
    DEATH = "death"


@dataclass(frozen=True, slots=True)
class WorkspaceKey:
    """Identifies a workspace. Every dataset name and path is derived from it, never passed around."""

    user_id: UUID
    session_id: UUID

    @property
    def relative(self) -> str:
        """`<user_id>/<session_id>`, relative to the workspaces' root."""
        return f"{self.user_id}/{self.session_id}"

    @classmethod
    def parse(cls, relative: str) -> WorkspaceKey | None:
        """The key whose `relative` this is, letter for letter; None for anything else.

        >>> WorkspaceKey.parse("lost+found") is None
        True
        """
        user, _, session = relative.partition("/")
        try:
            key = cls(UUID(user), UUID(session))
        except ValueError:
            return None
        return key if key.relative == relative else None


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace that exists: its dataset's (or directory's) name and where it is mounted."""

    key: WorkspaceKey
    dataset: str
    path: Path


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that exists. `name` is the part after `@`."""

    key: WorkspaceKey
    dataset: str
    name: str
    created_at: datetime

    @property
    def full_name(self) -> str:
        return f"{self.dataset}@{self.name}"


def snapshot_name(kind: SnapshotKind, at: datetime) -> str:
    """`stop-<unixms>` or `death-<unixms>` for an aware time.

    >>> snapshot_name(SnapshotKind.STOP, datetime(2026, 2, 17, 4, 58, 24, 293000, tzinfo=UTC))
    'stop-1771304304293'
    """
    delta = at - datetime(1970, 1, 1, tzinfo=UTC)
    milliseconds = delta.days * 86_400_000 + delta.seconds * 1000 + delta.microseconds // 1000
    return f"{kind.value}-{milliseconds}"


def is_snapshot_name(name: str) -> bool:
    """Whether this may name a snapshot on every kind of store: up to 100 letters, digits and `_.:-`, no sign first.

    >>> is_snapshot_name("stop-1771304304293"), is_snapshot_name("../../etc")
    (True, False)
    """
    return _SNAPSHOT_NAME.fullmatch(name) is not None


def is_hold_tag(tag: str) -> bool:
    """Whether this may be the tag of a hold: up to 40 lower-case letters, digits and `-`, no sign first.

    >>> is_hold_tag("retention"), is_hold_tag("-r")
    (True, False)
    """
    return _HOLD_TAG.fullmatch(tag) is not None
