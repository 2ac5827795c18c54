"""Owns the look into a dataset's directory: only whether there is anything, and never through a link."""

from __future__ import annotations

import os
from pathlib import Path

from medforged.adapters.zfs.mounts import Mounts

__all__ = ["holds_nothing"]


def holds_nothing(mounts: Mounts, dataset: str, path: Path) -> bool:
    """Whether the dataset is mounted at the path and has no entry. Blocks; raises OSError.

    The mount point of a dataset that is not mounted is empty too, whatever the dataset holds. So the mount is looked
    for while the directory is open, which keeps it mounted; were it mounted only since, the path would lead elsewhere.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as entries:
            if next(entries, None) is not None:
                return False
        mount = mounts.find(path)
        mounted = mount is not None and mount.source == dataset
        return mounted and os.path.samestat(os.fstat(descriptor), path.lstat())
    finally:
        os.close(descriptor)
