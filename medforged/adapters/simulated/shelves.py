"""Owns keeping a simulated host's items of one kind by their names: in memory, or as files that outlive the process.

A file is complete under its name before the call that wrote it returns, so it is there after the process was killed
(not after the machine was: nothing is flushed to the device). Every look reads what is there now. Differences to what
was known before are told to observers, whoever made them; `poll` looks for them and for nothing else.

All of it is synchronous: the files are small and come from the page cache, and only simulations have them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from medforged.domain.errors import HostError

__all__ = ["FileShelf", "FolderLock", "Observer", "Shelf"]

T = TypeVar("T", bound=msgspec.Struct)
Observer = Callable[[str, T | None, T | None], None]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}")
_SUFFIX = ".json"
# Temporary files and the lock: never the name of an item.
_TEMPORARY = ".new"
# Two changes within one tick of the kernel's clock (10 ms at most) have the same time: until a file is older than this,
# its time does not show whether it has changed again since it was read.
_SETTLED_NANOSECONDS = 50_000_000


class Shelf(Generic[T]):
    """Items in memory; they end with the process."""

    persistent = False

    def __init__(self) -> None:
        self._items: dict[str, T] = {}
        self._observers: list[Observer[T]] = []

    def get(self, name: str) -> T | None:
        return self._items.get(name)

    def items(self) -> dict[str, T]:
        """Everything, in the order of the names."""
        return dict(sorted(self._items.items()))

    def readable(self) -> dict[str, T]:
        """As `items`, with what was last known of an item that cannot be read now. Never raises."""
        self.poll()
        return dict(sorted(self._items.items()))

    def put(self, name: str, item: T, *, tell: bool = True) -> None:
        """Keep this under the name; observers learn of it unless they are not to be told."""
        before = self.get(name)
        self._items[name] = item
        if tell:
            self._tell(name, before, item)

    def remove(self, name: str, *, tell: bool = True) -> None:
        """Absent: no error, and nothing to tell."""
        before = self._items.pop(name, None)
        if before is not None and tell:
            self._tell(name, before, None)

    def exclusive(self) -> AbstractContextManager[None]:
        """Nobody else changes the host meanwhile: for reading in order to change, never across an await."""
        return contextlib.nullcontext()

    def poll(self) -> None:
        """Tell observers what others have changed. What cannot be read now is left for the next look. Never raises."""

    def observe(self, observer: Observer[T]) -> Callable[[], None]:
        """Call it with name, former and new item of every change from now on, until what is returned is called."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def _tell(self, name: str, before: T | None, after: T | None) -> None:
        for observer in tuple(self._observers):
            observer(name, before, after)


class FolderLock:
    """Exclusive use of a folder among processes; may be taken again by who holds it. A killed holder frees it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._depth = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Raises OSError."""
        with contextlib.ExitStack() as stack:
            if not self._depth:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1


class FileShelf(Shelf[T]):
    """Items as files `<folder>/<name>.json`. What cannot be read or written raises `error`, which names the file."""

    persistent = True

    def __init__(self, folder: Path, kind: type[T], error: type[HostError], lock: FolderLock) -> None:
        super().__init__()
        self._folder = folder
        self._error = error
        self._lock = lock
        self._decoder = msgspec.json.Decoder(kind)
        self._stamps: dict[str, tuple[int, int, int]] = {}
        self.poll()  # what is there already is no news

    def get(self, name: str) -> T | None:
        path = self._path(name)
        try:
            self._look(name, path.stat())
        except FileNotFoundError:
            self._know(name, None)
        except OSError as error:
            raise self._error(f"cannot read {path}: {error.strerror}; see that it can be read") from error
        return self._items.get(name)

    def items(self) -> dict[str, T]:
        for error in self._look_around():
            raise error
        return super().items()

    def put(self, name: str, item: T, *, tell: bool = True) -> None:
        path = self._path(name)
        with self.exclusive():
            before = self.get(name)
            try:
                self._folder.mkdir(exist_ok=True)
                # Under the lock there is one writer: one name serves, and a writer that was killed leaves one file.
                temporary = self._folder / _TEMPORARY
                temporary.write_bytes(msgspec.json.format(msgspec.json.encode(item), indent=2) + b"\n")
                temporary.replace(path)
            except OSError as error:
                raise self._error(f"cannot write {path}: {error.strerror}; see that it can be written") from error
            self._items[name] = item
        if tell:
            self._tell(name, before, item)

    def remove(self, name: str, *, tell: bool = True) -> None:
        path = self._path(name)
        with self.exclusive():
            before = self.get(name)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise self._error(f"cannot remove {path}: {error.strerror}; see that it can be removed") from error
            self._items.pop(name, None)
            self._stamps.pop(name, None)
        if before is not None and tell:
            self._tell(name, before, None)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._lock.hold())
            except OSError as error:
                raise self._error(
                    f"cannot lock {error.filename}: {error.strerror}; see that it can be written"
                ) from error
            yield

    def poll(self) -> None:
        self._look_around()

    def _look_around(self) -> list[HostError]:
        """Bring every item up to date, and return why that could not be done."""
        gone, problems = set(self._items), []
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    name = entry.name.removesuffix(_SUFFIX)
                    if name == entry.name or not _NAME.fullmatch(name):
                        continue
                    try:
                        self._look(name, entry.stat())
                    except self._error as error:
                        problems.append(error)
                    except FileNotFoundError:
                        continue  # since it was listed
                    gone.discard(name)
        except FileNotFoundError:
            pass  # nothing of this kind has ever been made
        except OSError as error:
            return [self._error(f"cannot list {self._folder}: {error.strerror}; see that it can be read")]
        for name in gone:
            self._know(name, None)
        return problems

    def _look(self, name: str, status: os.stat_result) -> None:
        """Bring one item up to date with its file, which had this status just now."""
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._stamps.get(name) == stamp:
            return
        path = self._path(name)
        # A stamp is kept only if no later change can have the same; it is taken before the content.
        settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NANOSECONDS
        self._stamps.pop(name, None)
        try:
            item = self._decoder.decode(path.read_bytes())
        except FileNotFoundError:
            raise
        except (OSError, msgspec.MsgspecError) as error:
            raise self._error(f"cannot read {path}: {error}; correct it, or remove it") from error
        if settled:
            self._stamps[name] = stamp
        self._know(name, item)

    def _know(self, name: str, item: T | None) -> None:
        before = self._items.pop(name, None)
        if item is None:
            self._stamps.pop(name, None)
        else:
            self._items[name] = item
        if before != item:
            self._tell(name, before, item)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise self._error(
                f"cannot keep {name!r} in {self._folder}: it cannot be the name of a file; choose another"
            )
        return self._folder / f"{name}{_SUFFIX}"
