"""Owns handing a directory over to its owner as root, without being led anywhere else by a link."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from medforged.domain.workspaces import OWNER_GID, OWNER_UID

__all__ = ["SESSION_OWNER", "Owner", "hand_over", "untrusted_part"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A numeric user and group; names mean nothing between host and container."""

    uid: int
    gid: int


SESSION_OWNER = Owner(OWNER_UID, OWNER_GID)


def hand_over(path: Path, owner: Owner, mode: int) -> None:
    """Give one directory (not what is in it) to its owner with exactly this mode. Raises OSError.

    The last component is opened without following a link and changed through its descriptor, so what was
    looked at is what is changed. The components before it have to belong to root, as every store's root does.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(descriptor, mode)
        if (status.st_uid, status.st_gid) != (owner.uid, owner.gid):
            os.fchown(descriptor, owner.uid, owner.gid)
    finally:
        os.close(descriptor)


def untrusted_part(path: Path) -> Path | None:
    """The first part of an existing path, links followed, that others than root and ourselves could replace or fill.

    A part is trusted that root or we own and nobody else can write to; a sticky directory such as /tmp is too,
    since what lies in it can be renamed by its owner alone. Raises OSError.
    """
    real = path.resolve(strict=True)
    for part in (*reversed(real.parents), real):
        status = part.lstat()
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if shared or status.st_uid not in {0, os.geteuid()}:
            return part
    return None
