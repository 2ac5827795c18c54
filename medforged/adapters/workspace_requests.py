"""Owns what every workspace store refuses before it does anything: quotas, names and tags that cannot be."""

from __future__ import annotations

from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import is_hold_tag, is_snapshot_name

__all__ = ["check_hold", "check_quota", "check_snapshot_name"]


def check_quota(what: str, quota_bytes: int | None) -> None:
    """`what` begins the message. Raises WorkspaceError."""
    if quota_bytes is not None and quota_bytes <= 0:
        raise WorkspaceError(f"{what}: a quota of {quota_bytes} bytes is not one; give a positive number, or none")


def check_snapshot_name(what: str, name: str) -> None:
    """Raises WorkspaceError."""
    if not is_snapshot_name(name):
        raise WorkspaceError(f"{what}: the name may hold letters, digits and _.:- only")


def check_hold(what: str, name: str, tag: str) -> None:
    """Raises WorkspaceError for the snapshot's name or the hold's tag."""
    check_snapshot_name(what, name)
    if not is_hold_tag(tag):
        raise WorkspaceError(f"{what}: the tag {tag!r} may hold lower-case letters, digits and - only")
