"""Owns services that lack one protection each, and which invariants are there to notice that."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medforged.domain.sessions import Session, SessionStatus
from medforged.domain.workspaces import SnapshotKind
from medforged.ports.state import Allocation, SessionChange
from medforged.services.assembly import Makers
from medforged.services.changes import ChangeFeed
from medforged.services.creation import SessionCreation
from medforged.services.ending import SessionEnding
from medforged.services.events import EventLoop
from medforged.services.gpus import GpuWatch
from medforged.services.isolation import IsolationGuard
from medforged.services.journal import RecoveryMode
from medforged.services.reconcile import Reconciliation
from medforged.services.records import Records
from medforged.services.release import GpuRelease
from medforged.services.report import Report

__all__ = ["SABOTAGES", "Sabotage"]


@dataclass(frozen=True, slots=True)
class Sabotage:
    """`noticed` are the invariants, one of which has to fail."""

    name: str
    make: Makers
    noticed: frozenset[str]


class _RecoversNothing(Reconciliation):
    async def run(self, mode: RecoveryMode, *, patience_seconds: float = 0) -> Report:
        del mode, patience_seconds
        return Report(0.0, 0, ())


class _HearsNothing(EventLoop):
    async def run(self) -> None:
        self.problem = None
        await asyncio.Event().wait()


class _TakesNoSnapshot(SessionEnding):
    async def _snapshot(self, session: Session, kind: SnapshotKind) -> Session:
        del kind
        return session


class _AlwaysProven(GpuRelease):
    async def doubt(self, session: Session) -> None:
        del session


class _ReleasesNothing(GpuWatch):
    async def release_free(self) -> tuple[Any, ...]:
        await self.refresh()
        return ()


class _IgnoresHolders(Records):
    """The database itself would refuse it, so that goes, too."""

    async def allocate(self, allocation: Allocation) -> Session:
        session = await super().allocate(allocation)
        state: Any = self._state
        with contextlib.closing(sqlite3.connect(Path(state._engine.url.database))) as database, database:
            database.execute("DROP INDEX IF EXISTS one_active_session_per_gpu")
            database.execute("UPDATE sessions SET gpu_id = 0 WHERE id = ?", (str(session.id),))
        return await self.get(session.id)


class _IgnoresLimits(SessionCreation):
    async def create(self, **wanted: Any) -> Session:
        return await super().create(**{**wanted, "max_concurrent_sessions": 99})


class _DoesNotProtect(IsolationGuard):
    async def assert_again(self, lost: Callable[[], Awaitable[None]] | None = None) -> None:
        """It says that it did."""


class _TellsNobody(ChangeFeed):
    def publish(self, session: Session) -> None:
        """It says that it did."""


class _DoesNotSayWhy(Records):
    async def change(self, session_id: Any, expected: Collection[SessionStatus], change: SessionChange) -> Session:
        return await super().change(session_id, expected, replace(change, error_message=None))


SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        "recovery does nothing",
        Makers(reconciliation=_RecoversNothing),
        frozenset({"nothing_in_limbo", "what_runs_is_whole", "quarantines_have_a_cause", "nothing_is_left"}),
    ),
    Sabotage("events are not heard", Makers(events=_HearsNothing), frozenset({"what_runs_is_whole"})),
    Sabotage(
        "snapshots are skipped",
        Makers(ending=_TakesNoSnapshot),
        frozenset({"one_final_snapshot", "snapshots_fail_for_a_reason"}),
    ),
    Sabotage(
        "release is always proven",
        Makers(proof=_AlwaysProven),
        frozenset({"gpus_are_explained", "nothing_shares_with_the_past"}),
    ),
    Sabotage("quarantines do not end", Makers(watch=_ReleasesNothing), frozenset({"quarantines_have_a_cause"})),
    Sabotage(
        "allocation ignores holders",
        Makers(records=_IgnoresHolders),
        frozenset({"one_session_per_gpu", "one_container_per_gpu", "liveness", "gpus_out_of_use_are_not_given"}),
    ),
    Sabotage("limits are ignored", Makers(creation=_IgnoresLimits), frozenset({"limits_hold", "liveness"})),
    Sabotage(
        "isolation is not repaired",
        Makers(guard=_DoesNotProtect),
        frozenset({"what_runs_is_isolated", "the_network_is_there", "health_is_honest"}),
    ),
    Sabotage("nobody is told", Makers(feed=_TellsNobody), frozenset({"watchers_know_everything"})),
    Sabotage("errors do not say why", Makers(records=_DoesNotSayWhy), frozenset({"ends_are_complete"})),
)
