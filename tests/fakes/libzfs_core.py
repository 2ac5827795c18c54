"""Owns the fake of the module `libzfs_core`: what the adapter uses of it, in memory, with every call recorded.

The errors are named and numbered as in libzfs_core 2.3.9; test_core.py holds the fake against the real module
where that is installed. Channel programs are not run: the fake answers as the three that the adapter has would.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class Exceptions:
    """Stands for the module `libzfs_core.exceptions`."""

    class ZFSError(Exception):
        errno: int = 0
        message = ""

        def __init__(self, name: bytes | None = None) -> None:
            super().__init__(name)
            self.name = name

        def __str__(self) -> str:
            return f"[Errno {self.errno}] {self.message}: '{self.name!r}'"

    class FilesystemExists(ZFSError):
        errno = errno.EEXIST
        message = "Filesystem already exists"

    class FilesystemNotFound(ZFSError):
        errno = errno.ENOENT
        message = "Filesystem not found"

    class ParentNotFound(ZFSError):
        errno = errno.ENOENT
        message = "Parent not found"

    class SnapshotExists(ZFSError):
        errno = errno.EEXIST
        message = "Snapshot already exists"

    class SnapshotNotFound(ZFSError):
        errno = errno.ENOENT
        message = "Snapshot not found"

    class SnapshotNotLatest(ZFSError):
        errno = errno.EEXIST
        message = "Snapshot is not the latest"

    class HoldExists(ZFSError):
        errno = errno.EEXIST
        message = "Hold already exists"

    class HoldFailure(ZFSError):
        message = "Placement of hold(s) failed for one or more reasons"

        def __init__(self, errors: Sequence[Exceptions.ZFSError], suppressed_count: int) -> None:
            super().__init__()
            self.errno = errors[0].errno
            self.errors = errors

    class PropertyInvalid(ZFSError):
        errno = errno.EINVAL
        message = "Invalid property or property value"

    class NameTooLong(ZFSError):
        errno = errno.ENAMETOOLONG
        message = "Dataset name is too long"

    class NoSpace(ZFSError):
        errno = errno.ENOSPC
        message = "No space left"

    class SuspendedPool(ZFSError):
        errno = errno.EAGAIN
        message = "Pool is suspended"

    class ZFSInitializationFailed(ZFSError):
        errno = errno.ENOENT
        message = "Failed to initialize libzfs_core"

    class SnapshotFailure(ZFSError):
        message = "Creation of snapshot(s) failed for one or more reasons"

        def __init__(self, errors: Sequence[Exceptions.ZFSError], suppressed_count: int) -> None:
            super().__init__()
            self.errno = errors[0].errno
            self.errors = errors


@dataclass
class _Snapshot:
    creation: int
    createtxg: int


class FakeLibZfsCore:
    """Datasets and snapshots by their bytes names. `fail` makes the next call of a function raise."""

    exceptions = Exceptions

    def __init__(self, *datasets: str) -> None:
        self.datasets: dict[bytes, Mapping[bytes, int | bytes]] = {name.encode(): {} for name in datasets}
        self.volumes: set[bytes] = set()
        self.snapshots: dict[bytes, _Snapshot] = {}
        self.holds: dict[bytes, set[bytes]] = {}
        self.calls: list[tuple[Any, ...]] = []
        self._failures: dict[str, deque[Exception]] = {}

    def fail(self, function: str, error: Exception) -> None:
        self._failures.setdefault(function, deque()).append(error)

    def lzc_create(self, name: bytes, ds_type: str = "zfs", props: Mapping[bytes, int | bytes] | None = None) -> None:
        self._enter("lzc_create", name, ds_type, props)
        if any(isinstance(value, int) and value >= 1 << 64 for value in (props or {}).values()):
            raise OverflowError("int too big to convert")
        self._add(name, props)

    def lzc_exists(self, name: bytes) -> bool:
        self._enter("lzc_exists", name)
        return name in self.datasets or name in self.snapshots

    def lzc_snapshot(self, snaps: Sequence[bytes]) -> None:
        self._enter("lzc_snapshot", tuple(snaps))
        for name in snaps:
            if name.partition(b"@")[0] not in self.datasets:
                raise Exceptions.SnapshotFailure([Exceptions.FilesystemNotFound(name)], 0)
            if name in self.snapshots:
                raise Exceptions.SnapshotFailure([Exceptions.SnapshotExists(name)], 0)
            self.snapshots[name] = _Snapshot(1_771_304_304, 100 + len(self.snapshots))

    def lzc_clone(self, name: bytes, origin: bytes, props: Mapping[bytes, int | bytes] | None = None) -> None:
        self._enter("lzc_clone", name, origin, props)
        if origin not in self.snapshots:
            raise Exceptions.SnapshotNotFound(origin)
        self._add(name, props)

    def lzc_rollback_to(self, name: bytes, snap: bytes) -> None:
        self._enter("lzc_rollback_to", name, snap)
        if snap not in self.snapshots:
            raise Exceptions.SnapshotNotFound(snap)
        if [one for one in self.snapshots if one.startswith(name + b"@")][-1] != snap:
            raise Exceptions.SnapshotNotLatest(snap)

    def lzc_hold(self, holds: Mapping[bytes, bytes], fd: int | None = None) -> Sequence[bytes]:
        self._enter("lzc_hold", dict(holds), fd)
        for snapshot, tag in holds.items():
            if tag in self.holds.get(snapshot, set()):
                raise Exceptions.HoldFailure([Exceptions.HoldExists(snapshot)], 0)
            if snapshot in self.snapshots:
                self.holds.setdefault(snapshot, set()).add(tag)
        return [snapshot for snapshot in holds if snapshot not in self.snapshots]

    def lzc_release(self, holds: Mapping[bytes, Sequence[bytes]]) -> Sequence[bytes]:
        self._enter("lzc_release", dict(holds))
        absent = []
        for snapshot, tags in holds.items():
            for tag in tags:
                if tag in self.holds.get(snapshot, set()):
                    self.holds[snapshot].remove(tag)
                else:
                    absent.append(snapshot + b"#" + tag)
        return absent

    def lzc_channel_program_nosync(
        self,
        poolname: bytes,
        program: bytes,
        instrlimit: int = 10_000_000,
        memlimit: int = 10 * 1024 * 1024,
        params: Sequence[bytes] | None = None,
    ) -> Mapping[bytes, Any]:
        assert params
        self._enter("lzc_channel_program_nosync", poolname, tuple(params), instrlimit, memlimit)
        dataset = params[0]
        if dataset not in self.datasets:
            return {b"missing": True}
        if b"zfs.list" not in program:
            return {b"found": {}}
        if b"zfs.list.snapshots" in program:
            return {
                b"found": {
                    name: {b"creation": snapshot.creation, b"createtxg": snapshot.createtxg}
                    # Channel programs list in no order that anybody promises.
                    for name, snapshot in reversed(self.snapshots.items())
                    if name.startswith(dataset + b"@")
                }
            }
        depth = int(params[1])
        below = [name for name in self.datasets if name.startswith(dataset + b"/") and name not in self.volumes]
        near = [name for name in below if name.removeprefix(dataset).count(b"/") <= depth]
        return {b"found": dict.fromkeys((dataset, *near), True)}

    def _add(self, name: bytes, props: Mapping[bytes, int | bytes] | None) -> None:
        if name in self.datasets:
            raise Exceptions.FilesystemExists(name)
        if name.rpartition(b"/")[0] not in self.datasets:
            raise Exceptions.ParentNotFound(name)
        self.datasets[name] = props or {}

    def _enter(self, function: str, *arguments: Any) -> None:
        self.calls.append((function, *arguments))
        planned = self._failures.get(function)
        if planned:
            raise planned.popleft()
