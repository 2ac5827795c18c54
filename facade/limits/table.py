"""Owns the table of counters: a piece of memory of fixed size without a file, which all workers of a facade share.

One process makes it (`SharedTable.create`) and hands its descriptor on; the others map the same memory
(`SharedTable.attach`). It has a region for each kind of key, so that no kind pushes out another. A key is kept as a
hash with the table's own secret salt: nobody can choose keys that meet, and no address or name can be read from it.

A region consists of sets of `WAYS` counters; a key belongs to one set. When its set is full, the counter that matters
least makes room: one that has run out, else the one that has counted least, else the one that has been still for
longest. So a flood of keys that are each seen once displaces only itself, and to displace a counter that has reached
its limit the whole region has to be filled with such.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import secrets
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from facade.limits.windows import COUNTS, SLICES, Counter, Window

__all__ = ["WAYS", "SharedTable", "TableMismatch"]

_log = structlog.get_logger()

WAYS = 8
_SETS = 2048
_MAGIC = b"mflimit1"
_SALT_BYTES = 32
_HEADER = struct.Struct(f"<8sII{_SALT_BYTES}s")
_HEADER_BYTES = 64
_TAG_BYTES = 16
_COUNTER = struct.Struct(f"<{_TAG_BYTES}sI2x{COUNTS}H")
_SET_BYTES = _COUNTER.size * WAYS
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_EMPTY = bytes(_TAG_BYTES)
# Another worker holds a set for some microseconds, or for as long as a busy machine does not let it run. One that is
# stopped meanwhile is not waited for longer than this, and then not again for a while: a count that is lost is better
# than a facade that stands still.
_LOCK_SECONDS = 1.0
_LOCK_RETRY_SECONDS = 0.0005
_STUCK_SECONDS = 60.0


class TableMismatch(Exception):
    """The descriptor does not lead to a table of this release."""


@dataclass(slots=True)
class _Way:
    """A counter and where it stands."""

    tag: bytes
    at: int
    counter: Counter

    def is_of(self, now: int) -> bool:
        """Whether its newest slice is a time at all, and not what a worker that was killed has half written.

        Another worker may have seen the next slice already.
        """
        return self.counter.newest <= now + 1

    def weight(self, now: int) -> tuple[int, int]:
        """What it matters at that time."""
        if self.tag == _EMPTY or not self.is_of(now) or self.counter.newest < now - SLICES:
            return 0, -1
        return self.counter.total(now), self.counter.newest


class SharedTable:
    """Counters of keys. Every call takes microseconds and touches one set, which it locks against other processes.

    Calls of one process must not overlap, which those of one event loop do not. The lock is the kernel's record lock,
    which ends with the process that holds it, however it ends.
    """

    def __init__(self, fd: int, regions: int, sets: int, salt: bytes, memory: mmap.mmap) -> None:
        self.fd = fd
        self.regions = regions
        self._sets = sets
        self._salt = salt
        self._memory = memory
        # Sets that were not let go, and until when they are not waited for.
        self._stuck: dict[int, float] = {}

    @classmethod
    def create(cls, regions: int, *, sets: int = _SETS) -> SharedTable:
        """An empty table, whose descriptor is not inherited unless it is passed on."""
        fd = os.memfd_create("medforge-limits", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, _size(regions, sets))
            # Nobody who has it can make it smaller, which would kill the others at their next access.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            os.pwrite(fd, _HEADER.pack(_MAGIC, regions, sets, secrets.token_bytes(_SALT_BYTES)), 0)
            return cls.attach(fd, regions)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int, regions: int) -> SharedTable:
        """The table that another process has made; its descriptor is closed with it. Raises TableMismatch."""
        header = os.pread(fd, _HEADER.size, 0)
        size = os.fstat(fd).st_size
        if len(header) < _HEADER.size:
            raise TableMismatch("it is too short")
        magic, found, sets, salt = _HEADER.unpack(header)
        if magic != _MAGIC or found != regions or size != _size(regions, sets):
            raise TableMismatch("it was made by another release")
        os.set_inheritable(fd, False)
        return cls(fd, regions, sets, salt, mmap.mmap(fd, size))

    @property
    def size(self) -> int:
        """Bytes, for good."""
        return len(self._memory)

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)

    def wait_ns(self, region: int, key: bytes, window: Window, now_ns: int) -> int:
        """How long until the key may be counted once more; 0 when it may now. Changes nothing."""
        now = window.slice_at(now_ns)
        tag, at = self._place(region, key)
        with self.locked(at):
            way = self._find(tag, at)
        return window.wait_ns(way.counter, now_ns) if way is not None and way.is_of(now) else 0

    def take(self, region: int, key: bytes, window: Window, now_ns: int) -> int:
        """Count the key once more and return 0; or count nothing and return how long it has to wait, in ns."""
        now = window.slice_at(now_ns)
        tag, at = self._place(region, key)
        with self.locked(at):
            way = self._find(tag, at) or self._least(at, now)
            if way.tag != tag or not way.is_of(now):
                way = _Way(tag, way.at, Counter.fresh(now))
            if wait := window.wait_ns(way.counter, now_ns):
                return wait
            way.counter.add(max(now, way.counter.newest))
            self._write(way)
            return 0

    def take_back(self, region: int, key: bytes, window: Window, taken_ns: int) -> None:
        """Undo what was counted at that moment, if it is still there."""
        number = window.slice_at(taken_ns)
        tag, at = self._place(region, key)
        with self.locked(at):
            if (way := self._find(tag, at)) is not None:
                way.counter.take_back(number)
                self._write(way)

    @contextmanager
    def locked(self, at: int) -> Iterator[None]:
        """Alone among processes with the set that begins there."""
        held = self._lock(at)
        try:
            yield
        finally:
            if held:
                fcntl.lockf(self.fd, fcntl.LOCK_UN, _SET_BYTES, at)

    def _lock(self, at: int) -> bool:
        began = time.monotonic()
        deadline = began if began < self._stuck.get(at, 0.0) else began + _LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _SET_BYTES, at)
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= deadline:
                    break
                time.sleep(_LOCK_RETRY_SECONDS)
            else:
                self._stuck.pop(at, None)
                return True
        if deadline > began:
            self._stuck[at] = time.monotonic() + _STUCK_SECONDS
            _log.warning(
                "limits.locked", reason="a worker holds a counter and does not go on", remedy="restart the facade"
            )
        return False

    def _place(self, region: int, key: bytes) -> tuple[bytes, int]:
        """How a key is known, and where its set begins."""
        digest = hashlib.blake2b(key, digest_size=_TAG_BYTES + 8, key=self._salt, person=region.to_bytes(2)).digest()
        number = region * self._sets + int.from_bytes(digest[_TAG_BYTES:]) % self._sets
        return digest[:_TAG_BYTES], _HEADER_BYTES + number * _SET_BYTES

    def _ways(self, at: int) -> Iterator[_Way]:
        for start in range(at, at + _SET_BYTES, _COUNTER.size):
            yield self._read(start)

    def _read(self, at: int) -> _Way:
        tag, newest, *counts = _COUNTER.unpack_from(self._memory, at)
        return _Way(tag, at, Counter(newest, counts))

    def _find(self, tag: bytes, at: int) -> _Way | None:
        for start in range(at, at + _SET_BYTES, _COUNTER.size):
            if self._memory[start : start + _TAG_BYTES] == tag:
                return self._read(start)
        return None

    def _least(self, at: int, now: int) -> _Way:
        """The way that matters least: how much it has counted, and how lately."""
        return min(self._ways(at), key=lambda way: way.weight(now))

    def _write(self, way: _Way) -> None:
        _COUNTER.pack_into(self._memory, way.at, way.tag, way.counter.newest, *way.counter.counts)


def _size(regions: int, sets: int) -> int:
    return _HEADER_BYTES + regions * sets * _SET_BYTES
