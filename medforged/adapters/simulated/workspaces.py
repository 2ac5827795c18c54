"""Owns simulated workspaces: names and snapshots on a simulated host. Quotas are noted and not enforced."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path

from msgspec.structs import replace

from medforged.adapters.simulated.hangs import Hang, Hangs
from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.items import SnapshotItem, WorkspaceItem
from medforged.adapters.workspace_requests import check_hold, check_quota, check_snapshot_name
from medforged.domain.adapters import AdapterDescription
from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import Snapshot, Workspace, WorkspaceKey
from medforged.ports.clock import Clock

__all__ = ["Faults", "Moment", "Operation", "RandomFaults", "SimulatedWorkspaceStore", "no_faults"]


class Operation(StrEnum):
    """The port's operations that can fail."""

    PREPARE = "prepare"
    CREATE = "create"
    EXISTS = "exists"
    SNAPSHOT = "snapshot"
    SNAPSHOTS = "snapshots"
    RESTORE = "restore"
    ROLL_BACK = "roll_back"
    HOLD = "hold"
    RELEASE = "release"
    IS_EMPTY = "is_empty"
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


class SimulatedWorkspaceStore:
    """WorkspaceStore on a `host`, by default one of its own; no root needed, and no file is ever in a workspace.

    Its names and paths look like those of a pool; `faults` may delay and fail.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        root: str = "simulated/medforge/workspaces",
        mount_root: Path | None = None,
        reason: str = "configured",
        faults: Faults = no_faults,
        host: SimulatedHost | None = None,
    ) -> None:
        self._clock = clock
        self._root = root
        self._mount_root = mount_root or Path("/", root)
        self._description = AdapterDescription("workspaces", "simulated", real=False, reason=reason)
        self._faults = faults
        self._hangs = Hangs()
        self._shelf = (host or SimulatedHost()).workspaces

    @property
    def root(self) -> str:
        """What precedes `/<user_id>/<session_id>` in every workspace's name."""
        return self._root

    def describe(self) -> AdapterDescription:
        return self._description

    def locate(self, key: WorkspaceKey) -> Workspace:
        return Workspace(key, f"{self._root}/{key.relative}", self._mount_root / key.relative)

    async def prepare(self) -> None:
        await self._enter(Operation.PREPARE)
        await self._faults(Operation.PREPARE, Moment.AFTER)

    async def create(self, key: WorkspaceKey, quota_bytes: int | None) -> Workspace:
        workspace = self.locate(key)
        await self._enter(Operation.CREATE, key)
        check_quota(f"cannot create workspace {workspace.dataset}", quota_bytes)
        made = WorkspaceItem(user_id=key.user_id, session_id=key.session_id, quota_bytes=quota_bytes)
        await self._make(Operation.CREATE, made)
        return workspace

    async def restore(
        self, source: WorkspaceKey, name: str, target: WorkspaceKey, quota_bytes: int | None
    ) -> Workspace:
        workspace = self.locate(target)
        what = f"cannot restore {self.locate(source).dataset}@{name} into {workspace.dataset}"
        await self._enter(Operation.RESTORE, target)
        check_quota(what, quota_bytes)
        made = WorkspaceItem(user_id=target.user_id, session_id=target.session_id, quota_bytes=quota_bytes)
        if self._get(target) is None:
            made = replace(made, files=self._snapshot(what, source, name).files)
        await self._make(Operation.RESTORE, made)
        return workspace

    async def roll_back(self, key: WorkspaceKey, name: str) -> None:
        what = f"cannot roll {self.locate(key).dataset} back to {name}"
        await self._enter(Operation.ROLL_BACK, key)
        with self._shelf.exclusive():
            snapshot, found = self._snapshot(what, key, name), self._get(key)
            assert found is not None
            if found.snapshots[-1] != snapshot:
                raise WorkspaceError(
                    f"{what}: it is not the newest snapshot; restore it into another workspace instead"
                )
            self._put(replace(found, files=snapshot.files))
        await self._faults(Operation.ROLL_BACK, Moment.AFTER)

    async def hold(self, key: WorkspaceKey, name: str, tag: str) -> None:
        what = f"cannot hold snapshot {self.locate(key).dataset}@{name}"
        await self._enter(Operation.HOLD, key)
        check_hold(what, name, tag)
        self._set_holds(key, self._snapshot(what, key, name), lambda tags: tags | {tag})
        await self._faults(Operation.HOLD, Moment.AFTER)

    async def release(self, key: WorkspaceKey, name: str, tag: str) -> None:
        what = f"cannot release snapshot {self.locate(key).dataset}@{name}"
        await self._enter(Operation.RELEASE, key)
        check_hold(what, name, tag)
        found = self._get(key)
        for snapshot in found.snapshots if found is not None else ():
            if snapshot.name == name:
                self._set_holds(key, snapshot, lambda tags: tags - {tag})
        await self._faults(Operation.RELEASE, Moment.AFTER)

    async def exists(self, key: WorkspaceKey) -> bool:
        await self._enter(Operation.EXISTS, key)
        await self._faults(Operation.EXISTS, Moment.AFTER)
        return self._get(key) is not None

    async def snapshot(self, key: WorkspaceKey, name: str) -> Snapshot:
        dataset = self.locate(key).dataset
        await self._enter(Operation.SNAPSHOT, key)
        check_snapshot_name(f"cannot take snapshot {dataset}@{name}", name)
        with self._shelf.exclusive():
            found = self._get(key)
            if found is None:
                raise WorkspaceError(f"cannot take snapshot {dataset}@{name}: there is no such workspace")
            taken = next((snapshot for snapshot in found.snapshots if snapshot.name == name), None)
            if taken is None:
                taken = SnapshotItem(name=name, created_at=self._clock.now(), files=found.files)
                self._put(replace(found, snapshots=(*found.snapshots, taken)))
        await self._faults(Operation.SNAPSHOT, Moment.AFTER)
        return Snapshot(key, dataset, name, taken.created_at)

    async def snapshots(self, key: WorkspaceKey) -> tuple[Snapshot, ...]:
        dataset = self.locate(key).dataset
        await self._enter(Operation.SNAPSHOTS, key)
        found = self._get(key)
        await self._faults(Operation.SNAPSHOTS, Moment.AFTER)
        taken = found.snapshots if found is not None else ()
        return tuple(Snapshot(key, dataset, snapshot.name, snapshot.created_at) for snapshot in taken)

    async def is_empty(self, key: WorkspaceKey) -> bool:
        await self._enter(Operation.IS_EMPTY, key)
        found = self._get(key)
        await self._faults(Operation.IS_EMPTY, Moment.AFTER)
        return found is None or not (found.snapshots or found.files)

    async def discard(self, key: WorkspaceKey) -> None:
        await self._enter(Operation.DISCARD, key)
        with self._shelf.exclusive():
            found = self._get(key)
            if found is not None and found.snapshots:
                raise WorkspaceError(f"cannot discard workspace {self.locate(key).dataset}: it has snapshots")
            self._shelf.remove(_name(key))
        await self._faults(Operation.DISCARD, Moment.AFTER)

    async def keys(self) -> tuple[WorkspaceKey, ...]:
        await self._enter(Operation.KEYS)
        await self._faults(Operation.KEYS, Moment.AFTER)
        return tuple(WorkspaceKey(item.user_id, item.session_id) for item in self._shelf.items().values())

    # What a test or a demonstration does to it.

    def hang(self, operation: Operation | str, key: WorkspaceKey | None = None) -> Hang:
        """Let calls of this operation, all or those about one workspace, not return until what is returned says so."""
        return self._hangs.add(Operation(operation), key)

    def held(self, key: WorkspaceKey, name: str) -> int:
        """By how many tags a snapshot is held. Raises WorkspaceError where there is none."""
        return len(self._snapshot("cannot count holds", key, name).holds)

    def write(self, key: WorkspaceKey, files: int = 1) -> None:
        """Let so many files be in a workspace, as its session would write them. Raises WorkspaceError."""
        with self._shelf.exclusive():
            found = self._get(key)
            if found is None:
                raise WorkspaceError(
                    f"cannot write to workspace {self.locate(key).dataset}: there is no such workspace"
                )
            self._put(replace(found, files=files))

    async def _make(self, operation: Operation, made: WorkspaceItem) -> None:
        """Put a workspace there unless there is one. Raises WorkspaceError, and then it is not there."""
        key = WorkspaceKey(made.user_id, made.session_id)
        with self._shelf.exclusive():
            fresh = self._get(key) is None
            if fresh:
                self._put(made)
        try:
            await self._faults(operation, Moment.AFTER)
        except WorkspaceError:
            # The port promises that a failure leaves nothing behind.
            if fresh:
                self._shelf.remove(_name(key))
            raise

    def _snapshot(self, what: str, key: WorkspaceKey, name: str) -> SnapshotItem:
        """Raises WorkspaceError where there is none."""
        check_snapshot_name(what, name)
        found = self._get(key)
        for snapshot in found.snapshots if found is not None else ():
            if snapshot.name == name:
                return snapshot
        raise WorkspaceError(f"{what}: there is no such snapshot")

    def _set_holds(
        self, key: WorkspaceKey, old: SnapshotItem, change: Callable[[frozenset[str]], frozenset[str]]
    ) -> None:
        with self._shelf.exclusive():
            found = self._get(key)
            assert found is not None
            new = replace(old, holds=tuple(sorted(change(frozenset(old.holds)))))
            self._put(replace(found, snapshots=tuple(new if one == old else one for one in found.snapshots)))

    async def _enter(self, operation: Operation, key: WorkspaceKey | None = None) -> None:
        """Every call begins here."""
        await self._hangs.wait(operation, key)
        await self._faults(operation, Moment.BEFORE)

    def _get(self, key: WorkspaceKey) -> WorkspaceItem | None:
        return self._shelf.get(_name(key))

    def _put(self, item: WorkspaceItem) -> None:
        self._shelf.put(_name(WorkspaceKey(item.user_id, item.session_id)), item)


def _name(key: WorkspaceKey) -> str:
    return f"{key.user_id}_{key.session_id}"
