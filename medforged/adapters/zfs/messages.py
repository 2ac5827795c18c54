"""Owns what the messages of `zfs` and `zpool` mean: zfs-fuse 0.7 and OpenZFS 2.x, untranslated. Pure.

The commands end with status 1 whatever went wrong, so the text is all there is. Recorded output of both,
with its provenance, is under tests/fixtures/zfs.
"""

from __future__ import annotations

from medforged.adapters.zfs.problems import ZfsProblem

__all__ = ["classify"]

# The first fragment that occurs decides. Libzfs words each error once (libzfs_util.c, libzfs_error_description),
# so fragments are those of its table; the order matters only where one message holds two.
_FRAGMENTS = (
    ("ermission denied", ZfsProblem.DENIED),
    ("successfully created, but not mounted", ZfsProblem.MADE_NOT_MOUNTED),
    ("failed to initialize ZFS library", ZfsProblem.UNREACHABLE),
    ("make sure that the zfs-fuse daemon is running", ZfsProblem.UNREACHABLE),
    ("ZFS modules are not loaded", ZfsProblem.UNREACHABLE),
    ("ZFS modules cannot be auto-loaded", ZfsProblem.UNREACHABLE),
    ("/dev/zfs and /proc/self/mounts are required", ZfsProblem.UNREACHABLE),
    ("has children", ZfsProblem.HAS_CHILDREN),
    ("parent does not exist", ZfsProblem.PARENT_MISSING),
    ("dataset already exists", ZfsProblem.EXISTS),
    ("tag already exists", ZfsProblem.EXISTS),
    ("no such tag", ZfsProblem.MISSING),
    ("no such snapshot", ZfsProblem.MISSING),
    ("more recent snapshots", ZfsProblem.NOT_NEWEST),
    ("dataset does not exist", ZfsProblem.MISSING),
    ("no such pool", ZfsProblem.MISSING),
    ("is currently suspended", ZfsProblem.SUSPENDED),
    ("is busy", ZfsProblem.BUSY),
    ("umount failed", ZfsProblem.BUSY),
    ("out of space", ZfsProblem.NO_SPACE),
    ("quota exceeded", ZfsProblem.NO_SPACE),
    ("too long", ZfsProblem.NAME_TOO_LONG),
    ("read-only", ZfsProblem.READ_ONLY),
    ("numeric value", ZfsProblem.BAD_PROPERTY),
    ("disable quota/refquota", ZfsProblem.BAD_PROPERTY),
    ("invalid quota", ZfsProblem.BAD_PROPERTY),
    ("invalid property", ZfsProblem.BAD_PROPERTY),
    ("size is less than current used", ZfsProblem.BAD_PROPERTY),
    ("directory is not empty", ZfsProblem.NOT_MOUNTED),
    ("cannot mount", ZfsProblem.NOT_MOUNTED),
)


def classify(said: str) -> ZfsProblem:
    """What a failed command's message means.

    >>> classify("cannot open 'tank/a': dataset does not exist")
    <ZfsProblem.MISSING: 'missing'>
    """
    return next((problem for fragment, problem in _FRAGMENTS if fragment in said), ZfsProblem.OTHER)
