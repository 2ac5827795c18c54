"""Owns the fake of the `workspaces` port: the simulated store, with a journal, calls that can be held and calls that fail."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from medforged.adapters.simulated.workspaces import Moment, Operation, SimulatedWorkspaceStore
from medforged.domain.adapters import AdapterDescription
from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import WorkspaceKey


def workspace_key(session: int = 1, *, user: int = 1) -> WorkspaceKey:
    """The same numbers give the same key."""
    return WorkspaceKey(uuid5(NAMESPACE_OID, f"fake user {user}"), uuid5(NAMESPACE_OID, f"fake session {session}"))


class SteppingClock:
    """A Clock that only sleeping moves on; `pauses` has every sleep."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._start = datetime(2026, 2, 17, 4, 58, 24, 293000, tzinfo=UTC)

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return sum(self.pauses)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


class FakeWorkspaceStore(SimulatedWorkspaceStore):
    """WorkspaceStore for tests of what uses it.

    `journal` has every operation in its order. `fail("create")` makes the next call of that operation raise
    WorkspaceError, before its effect or, with `after=True`, when it had it. `pause("create")` lets calls wait before
    they have any effect until `proceed("create")`; `arrived("create")` waits for one to be held.
    """

    def __init__(self, *, root: str = "fake/medforge/workspaces", mount_root: Path | None = None) -> None:
        super().__init__(SteppingClock(), root=root, mount_root=mount_root, faults=self._strike)
        self.journal: list[str] = []
        self._failures: dict[tuple[Operation, Moment], deque[str]] = {}
        self._held: dict[Operation, asyncio.Event] = {}
        self._arrivals: dict[Operation, asyncio.Event] = {}

    def describe(self) -> AdapterDescription:
        return AdapterDescription("workspaces", "fake", real=False, reason="a test runs")

    def fail(self, operation: str, message: str = "cannot do that: a test says so", *, after: bool = False) -> None:
        moment = Moment.AFTER if after else Moment.BEFORE
        self._failures.setdefault((Operation(operation), moment), deque()).append(message)

    def pause(self, operation: str) -> None:
        self._held[Operation(operation)] = asyncio.Event()
        self._arrivals[Operation(operation)] = asyncio.Event()

    def proceed(self, operation: str) -> None:
        self._held.pop(Operation(operation)).set()

    async def arrived(self, operation: str) -> None:
        await self._arrivals[Operation(operation)].wait()

    async def _strike(self, operation: Operation, moment: Moment) -> None:
        if moment is Moment.BEFORE:
            self.journal.append(operation.value)
            held = self._held.get(operation)
            if held is not None:
                self._arrivals[operation].set()
                await held.wait()
        planned = self._failures.get((operation, moment))
        if planned:
            raise WorkspaceError(planned.popleft())
