"""Owns the question how a bind mount of a host directory may propagate.

With `rslave`, what is mounted below the directory on the host after the container has started appears inside it;
the engine refuses that where the directory lies on a mount that is not shared itself. On a systemd host every
mount is shared unless somebody made it private.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

__all__ = ["Propagation", "propagation_of", "read_propagation"]

_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


class Propagation(StrEnum):
    """Whether later mounts on the host are seen inside the container. Never the other way round."""

    SLAVE = "rslave"
    PRIVATE = "rprivate"


def read_propagation(directory: Path) -> Propagation:
    """The best propagation that the directory's mount allows, in this process's mount namespace."""
    return propagation_of(directory.resolve(), _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape"))


def propagation_of(directory: Path, mountinfo: str) -> Propagation:
    """The same, from the text of a mountinfo file (proc_pid_mountinfo(5)): the mount is the one with the longest path
    that holds the directory, and of several on the same path the last, which hides the others."""
    best, length = Propagation.PRIVATE, -1
    # Not splitlines(): the kernel escapes newlines in paths, and none of the other characters that it splits at.
    for line in mountinfo.removesuffix("\n").split("\n"):
        fields = line.split(" ")
        point = Path(_unescape(fields[4]))
        if len(point.parts) < length or not directory.is_relative_to(point):
            continue
        length = len(point.parts)
        tags = fields[6 : fields.index("-")]
        shared = any(tag.startswith(("shared:", "master:")) for tag in tags)
        best = Propagation.SLAVE if shared else Propagation.PRIVATE
    return best


def _unescape(path: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), path)
