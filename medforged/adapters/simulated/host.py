"""Owns the host that simulated adapters share: what exists on it, in memory or in a folder that outlives the process.

    <directory>/containers/<name>.json              ContainerItem
    <directory>/networks/<name>.json                NetworkItem
    <directory>/workspaces/<user>_<session>.json    WorkspaceItem
    <directory>/isolation/<network>.json            IsolationItem; without one the network has no rules
    <directory>/gpus/<uuid>.json                    GpuItem; without one the GPU is idle and healthy
    <directory>/engine/containers.json              PartItem, of the container engine as a whole; without one it works
    <directory>/driver/gpus.json                    PartItem, of the GPU driver
    <directory>/filter/isolation.json               PartItem, of the packet filter
    <directory>/.lock                               held (flock) by whoever reads a file in order to change it

The fields are those of the classes in `items.py`. Any program may change the host: it writes a whole file under a name
that begins with a dot and renames it, or removes a file. What it changed is seen by the next call, and where somebody
waits for changes (a subscription, `changed`), after `POLL_SECONDS` at most. It is simplest with the adapters
themselves, which in any process do to the host what their methods for tests say: `SimulatedRuntime(host=…).die(name)`.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from medforged.adapters.simulated.items import (
    ContainerItem,
    GpuItem,
    IsolationItem,
    NetworkItem,
    PartItem,
    WorkspaceItem,
)
from medforged.adapters.simulated.shelves import FileShelf, FolderLock, Shelf
from medforged.domain.errors import (
    ContainerError,
    ContainerUnavailable,
    GpuError,
    HostError,
    IsolationError,
    WorkspaceError,
)

__all__ = ["POLL_SECONDS", "SimulatedHost", "Watch"]

T = TypeVar("T", bound=msgspec.Struct)

POLL_SECONDS = 0.1


class SimulatedHost:
    """Everything that simulated adapters find and leave behind. Without a directory it ends with the process.

    Each kind of thing has its shelf; a shelf of a folder raises the error of the port whose things it has. `engine`,
    `driver` and `filter` have one item each, called after its port.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._lock = FolderLock(directory / ".lock") if directory else None
        self.containers: Shelf[ContainerItem] = self._shelf("containers", ContainerItem, ContainerError)
        self.networks: Shelf[NetworkItem] = self._shelf("networks", NetworkItem, ContainerError)
        self.workspaces: Shelf[WorkspaceItem] = self._shelf("workspaces", WorkspaceItem, WorkspaceError)
        self.isolation: Shelf[IsolationItem] = self._shelf("isolation", IsolationItem, IsolationError)
        self.gpus: Shelf[GpuItem] = self._shelf("gpus", GpuItem, GpuError)
        self.engine: Shelf[PartItem] = self._shelf("engine", PartItem, ContainerUnavailable)
        self.driver: Shelf[PartItem] = self._shelf("driver", PartItem, GpuError)
        self.filter: Shelf[PartItem] = self._shelf("filter", PartItem, IsolationError)

    def _shelf(self, noun: str, kind: type[T], error: type[HostError]) -> Shelf[T]:
        if self._directory is None or self._lock is None:
            return Shelf()
        return FileShelf(self._directory / noun, kind, error, self._lock)


class Watch:
    """Waits for changes of some shelves. A change between two waits is not lost; many at once are one."""

    def __init__(self, *shelves: Shelf[Any]) -> None:
        self._shelves = shelves
        self._changed = asyncio.Event()
        self._stops = [shelf.observe(lambda *_: self._changed.set()) for shelf in shelves]

    def notify(self) -> None:
        """Let somebody who waits look."""
        self._changed.set()

    def close(self) -> None:
        for stop in self._stops:
            stop()
        self._stops.clear()

    async def wait(self, timeout_seconds: float | None = None) -> bool:
        """Whether anything has changed since the last wait that said so; waits for it up to the timeout."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_seconds is None else loop.time() + timeout_seconds
        pause = POLL_SECONDS if any(shelf.persistent for shelf in self._shelves) else None
        await asyncio.sleep(0)  # as a real wait, it always lets others run
        while True:
            for shelf in self._shelves:
                shelf.poll()
            if self._changed.is_set():
                self._changed.clear()
                return True
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return False
            limits = [limit for limit in (pause, left) if limit is not None]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(limits) if limits else None):
                    await self._changed.wait()
