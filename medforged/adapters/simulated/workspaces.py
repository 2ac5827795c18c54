"""Owns simulated workspaces: names and snapshots in memory, nothing on disk, no root needed. Quotas are ignored."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from medforged.domain.adapters import AdapterDescription
from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import Snapshot, Workspace, WorkspaceKey, is_snapshot_name
from medforged.ports.clock import Clock

__all__ = ["Faults", "Moment", "Operation", "RandomFaults", "SimulatedWorkspaceStore", "no_faults"]


class Operation(StrEnum):
    """The port's operations that can fail."""

    PREPARE = "prepare"
    CREATE = "create"
    EXISTS = "exists"
    SNAPSHOT = "snapshot"
    SNAPSHOTS = "snapshots"
    DISCARD = "discard"
    KEYS = "keys"


class Moment(StrEnum):
    """Whether a fault strikes before the operation had its effect, or when it had and only the answer is lost."""

    BEFORE = "before"
    AFTER = "after"


Faults = Callable[[Operation, Moment], Awaitable[None]]


async def no_faults(operation: Operation, moment: Moment) -> None:
    """Everything works at once."""


class RandomFaults:
    """Makes a share of the operations fail, half of them after their effect, and all of them take a while.

    `rate` is between 0 and 1; `seconds` the longest duration; the same `seed` gives the same sequence.
    """

    def __init__(self, clock: Clock, *, rate: float, seconds: float = 0.0, seed: int = 0) -> None:
        self._clock = clock
        self._rate = rate
        self._seconds = seconds
        self._random = random.Random(seed)  # noqa: S311 - a simulation: to be repeatable is the point

    async def __call__(self, operation: Operation, moment: Moment) -> None:
        if moment is Moment.BEFORE:
            await self._clock.sleep(self._random.uniform(0, self._seconds))
        # Each operation passes here twice.
        if self._random.random() < self._rate / 2:
            raise WorkspaceError(f"cannot {operation} workspace: simulated fault {moment} its effect; try again")


@dataclass(slots=True)
class _Contents:
    quota_bytes: int | None
    snapshots: dict[str, datetime] = field(default_factory=dict)


class SimulatedWorkspaceStore:
    """WorkspaceStore in memory. Its names and paths look like those of a pool; `faults` may delay and fail."""

    def __init__(
        self,
        clock: Clock,
        *,
        root: str = "simulated/medforge/workspaces",
        mount_root: Path | None = None,
        reason: str = "configured",
        faults: Faults = no_faults,
    ) -> None:
        self._clock = clock
        self._root = root
        self._mount_root = mount_root or Path("/", root)
        self._description = AdapterDescription("workspaces", "simulated", real=False, reason=reason)
        self._faults = faults
        self._workspaces: dict[WorkspaceKey, _Contents] = {}

    @property
    def root(self) -> str:
        """What precedes `/<user_id>/<session_id>` in every workspace's name."""
        return self._root

    def describe(self) -> AdapterDescription:
        return self._description

    def locate(self, key: WorkspaceKey) -> Workspace:
        return Workspace(key, f"{self._root}/{key.relative}", self._mount_root / key.relative)

    async def prepare(self) -> None:
        await self._faults(Operation.PREPARE, Moment.BEFORE)
        await self._faults(Operation.PREPARE, Moment.AFTER)

    async def create(self, key: WorkspaceKey, quota_bytes: int | None) -> Workspace:
        workspace = self.locate(key)
        await self._faults(Operation.CREATE, Moment.BEFORE)
        if quota_bytes is not None and quota_bytes <= 0:
            raise WorkspaceError(
                f"cannot create workspace {workspace.dataset}: a quota of {quota_bytes} bytes is not one"
            )
        fresh = key not in self._workspaces
        self._workspaces.setdefault(key, _Contents(quota_bytes))
        try:
            await self._faults(Operation.CREATE, Moment.AFTER)
        except WorkspaceError:
            # The port promises that a failure leaves nothing behind.
            if fresh:
                del self._workspaces[key]
            raise
        return workspace

    async def exists(self, key: WorkspaceKey) -> bool:
        await self._faults(Operation.EXISTS, Moment.BEFORE)
        await self._faults(Operation.EXISTS, Moment.AFTER)
        return key in self._workspaces

    async def snapshot(self, key: WorkspaceKey, name: str) -> Snapshot:
        dataset = self.locate(key).dataset
        await self._faults(Operation.SNAPSHOT, Moment.BEFORE)
        if not is_snapshot_name(name):
            raise WorkspaceError(
                f"cannot take snapshot {dataset}@{name}: the name may hold letters, digits and _.:- only"
            )
        contents = self._workspaces.get(key)
        if contents is None:
            raise WorkspaceError(f"cannot take snapshot {dataset}@{name}: there is no such workspace")
        created_at = contents.snapshots.setdefault(name, self._clock.now())
        await self._faults(Operation.SNAPSHOT, Moment.AFTER)
        return Snapshot(key, dataset, name, created_at)

    async def snapshots(self, key: WorkspaceKey) -> tuple[Snapshot, ...]:
        dataset = self.locate(key).dataset
        await self._faults(Operation.SNAPSHOTS, Moment.BEFORE)
        contents = self._workspaces.get(key)
        taken = contents.snapshots if contents else {}
        await self._faults(Operation.SNAPSHOTS, Moment.AFTER)
        return tuple(Snapshot(key, dataset, name, created_at) for name, created_at in taken.items())

    async def discard(self, key: WorkspaceKey) -> None:
        await self._faults(Operation.DISCARD, Moment.BEFORE)
        contents = self._workspaces.get(key)
        if contents is not None and contents.snapshots:
            raise WorkspaceError(f"cannot discard workspace {self.locate(key).dataset}: it has snapshots")
        self._workspaces.pop(key, None)
        await self._faults(Operation.DISCARD, Moment.AFTER)

    async def keys(self) -> tuple[WorkspaceKey, ...]:
        await self._faults(Operation.KEYS, Moment.BEFORE)
        await self._faults(Operation.KEYS, Moment.AFTER)
        return tuple(self._workspaces)
