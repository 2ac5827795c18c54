"""Owns the kernel's mounts: reading the table of this process's namespace, and mount(2) itself.

`mountinfo` is pure to parse (proc_pid_mountinfo(5)); the system calls are made through the C library.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Mount", "Mounts", "SystemMounts", "find_mount", "parse_mountinfo"]

_MOUNTINFO = Path("/proc/self/mountinfo")

# <sys/mount.h>
_MS_RDONLY = 0x1
_MS_NOSUID = 0x2
_MS_NODEV = 0x4
_MS_NOEXEC = 0x8
_MS_REMOUNT = 0x20
_MS_NOATIME = 0x400
_MS_BIND = 0x1000

# Flags that a remount would drop if it did not repeat them. Those about access times are kept by the kernel.
_KEPT = {"ro": _MS_RDONLY, "noexec": _MS_NOEXEC}
_REQUIRED = frozenset({"nosuid", "nodev"})


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of the mount table. For ZFS, in the kernel or in user space, `source` is the dataset's name."""

    source: str
    path: Path
    options: frozenset[str]

    @property
    def harmless(self) -> bool:
        """Whether setuid programs and device nodes on it mean nothing."""
        return self.options >= _REQUIRED


class Mounts(Protocol):
    """The mounts of this process's namespace. All raise OSError."""

    def find(self, path: Path) -> Mount | None:
        """What is mounted exactly at `path`; of several, the one that is seen."""
        ...

    def restrict(self, mount: Mount) -> None:
        """Make an existing mount nosuid and nodev."""
        ...

    def mount_zfs(self, dataset: str, path: Path) -> None:
        """Mount an OpenZFS dataset nosuid, nodev and noatime; the directory is made where it is missing."""
        ...


def find_mount(path: Path, mountinfo: str) -> Mount | None:
    """The last mount at exactly `path`, which hides earlier ones, from the text of a mountinfo file."""
    # Most lines are other sessions' mounts: only those that hold the path at all are taken apart.
    lines = (line for line in mountinfo.splitlines() if f" {_escape(str(path))} " in line)
    return next((mount for mount in reversed(list(parse_mountinfo(lines))) if mount.path == path), None)


def parse_mountinfo(lines: Iterator[str]) -> Iterator[Mount]:
    """The mounts in the order in which they were made."""
    for line in lines:
        fields = line.split(" ")
        source = fields[fields.index("-", 6) + 2]
        yield Mount(_unescape(source), Path(_unescape(fields[4])), frozenset(fields[5].split(",")))


class SystemMounts:
    """The mounts of this host."""

    def find(self, path: Path) -> Mount | None:
        return find_mount(path, _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape"))

    def restrict(self, mount: Mount) -> None:
        kept = sum(flag for option, flag in _KEPT.items() if option in mount.options)
        # With MS_BIND the remount changes this mount only, not the file system, and asks the file system nothing.
        _mount(None, mount.path, None, _MS_REMOUNT | _MS_BIND | _MS_NOSUID | _MS_NODEV | kept, None)

    def mount_zfs(self, dataset: str, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        # What zfs(8) passes too (libzfs_mount_os.c): zfsutil says that the caller has honoured the properties,
        # without it only `mountpoint=legacy` can be mounted; mntpoint is where snapshots are mounted automatically.
        options = f"zfsutil,mntpoint={path}"
        _mount(dataset, path, "zfs", _MS_NOSUID | _MS_NODEV | _MS_NOATIME, options)


def _mount(source: str | None, target: Path, kind: str | None, flags: int, options: str | None) -> None:
    """mount(2). Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    library.mount.restype = ctypes.c_int
    if library.mount(_bytes(source), os.fsencode(target), _bytes(kind), flags, _bytes(options)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def _escape(path: str) -> str:
    # The kernel writes these four as three octal digits (seq_path with "\t\n\\ ").
    return "".join(f"\\{ord(letter):03o}" if letter in " \t\n\\" else letter for letter in path)


def _unescape(path: str) -> str:
    for letter in " \t\n":
        path = path.replace(f"\\{ord(letter):03o}", letter)
    return path.replace("\\134", "\\")
