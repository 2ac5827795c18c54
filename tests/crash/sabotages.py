"""Owns taking away one protection at a time, so that every invariant is seen to fail in a running daemon.

Each is made of calls of ports that are answered otherwise, and says which invariant has to notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.items import WorkspaceItem
from medforged.domain.errors import NoGpuAvailable
from medforged.domain.isolation import IsolationReport
from medforged.domain.sessions import SessionStatus, SessionStep
from medforged.domain.workspaces import Snapshot, WorkspaceKey
from medforged.ports.state import SessionChange
from tests.crash.faults import Answer
from tests.crash.testbed import HOST

__all__ = ["SABOTAGES", "Sabotage"]

Call = Callable[..., Awaitable[Any]]
Answers = Mapping[tuple[str, str], Answer]


@dataclass(frozen=True, slots=True)
class Sabotage:
    """`answers` gives the calls that are answered otherwise, for a daemon in a directory; `noticed` is the invariant
    that has to fail in the scenario. `recovery_only`: the daemon that is killed was whole."""

    name: str
    scenario: str
    noticed: str
    answers: Callable[[Path], Answers]
    recovery_only: bool = False


def _recovery_sees_nothing(_: Path) -> Answers:
    async def active(_call: Call) -> Any:
        return ()

    return {("state", "active"): active}


def _events_are_not_heard(_: Path) -> Answers:
    @contextlib.asynccontextmanager
    async def subscribe(_call: Call) -> AsyncIterator[AsyncIterator[Any]]:
        yield _nothing_happens()

    return {("containers", "subscribe"): subscribe}  # type: ignore[dict-item]  # the one method that is no coroutine


async def _nothing_happens() -> AsyncIterator[Any]:
    await asyncio.Event().wait()
    yield None


def _gpus_are_shared(directory: Path) -> Answers:
    async def allocate(call: Call, allocation: Any) -> Any:
        session = await call(allocation)
        with contextlib.closing(sqlite3.connect(directory / "medforged.db", timeout=10)) as database, database:
            database.execute("DROP INDEX IF EXISTS one_active_session_per_gpu")
            database.execute("UPDATE sessions SET gpu_id = 0 WHERE id = ?", (str(session.id),))
        return session

    return {("state", "allocate"): allocate}


def _no_gpu_is_ever_free(_: Path) -> Answers:
    async def allocate(_call: Call, _allocation: Any) -> Any:
        raise NoGpuAvailable("No GPUs available")

    return {("state", "allocate"): allocate}


def _records_are_forgotten(directory: Path) -> Answers:
    async def change(call: Call, session_id: UUID, expected: Any, wanted: SessionChange) -> Any:
        session = await call(session_id, expected, wanted)
        if wanted.status is SessionStatus.ERROR:
            with contextlib.closing(sqlite3.connect(directory / "medforged.db", timeout=10)) as database, database:
                database.execute("DELETE FROM sessions WHERE id = ?", (str(session_id),))
        return session

    return {("state", "change"): change}


def _errors_do_not_say_why(_: Path) -> Answers:
    async def change(call: Call, session_id: UUID, expected: Any, wanted: SessionChange) -> Any:
        return await call(session_id, expected, replace(wanted, error_message=None))

    return {("state", "change"): change}


def _snapshots_are_named_anew(_: Path) -> Answers:
    async def session(call: Call, session_id: UUID) -> Any:
        return replace(await call(session_id), snapshot_at=None)

    return {("state", "session"): session}


def _snapshots_are_not_taken(_: Path) -> Answers:
    async def snapshot(_call: Call, key: WorkspaceKey, name: str) -> Any:
        return Snapshot(key, key.relative, name, datetime.now(UTC))

    return {("workspaces", "snapshot"): snapshot}


def _workspaces_go_with_their_session(directory: Path) -> Answers:
    async def change(call: Call, session_id: UUID, expected: Any, wanted: SessionChange) -> Any:
        session = await call(session_id, expected, wanted)
        if wanted.step is SessionStep.DONE:
            SimulatedHost(directory / HOST).workspaces.remove(f"{session.user_id}_{session.id}")
        return session

    return {("state", "change"): change}


def _workspaces_come_in_pairs(directory: Path) -> Answers:
    async def create(call: Call, key: WorkspaceKey, quota_bytes: int | None) -> Any:
        spare = WorkspaceItem(user_id=key.user_id, session_id=UUID(int=99, version=4))
        SimulatedHost(directory / HOST).workspaces.put(f"{spare.user_id}_{spare.session_id}", spare)
        return await call(key, quota_bytes)

    return {("workspaces", "create"): create}


def _containers_are_not_removed(_: Path) -> Answers:
    async def remove(_call: Call, _name: str) -> None:
        """It says that it did."""

    return {("containers", "remove"): remove}


def _all_containers_are_removed(directory: Path) -> Answers:
    async def remove(call: Call, name: str) -> None:
        for other in SimulatedHost(directory / HOST).containers.items():
            await call(other)
        await call(name)

    return {("containers", "remove"): remove}


def _processes_are_not_looked_at(_: Path) -> Answers:
    async def of_container(_call: Call, _processes: Any, _container: Any) -> Any:
        return ()

    return {("processes", "of_container"): of_container}


def _quarantines_do_not_end(_: Path) -> Answers:
    async def release_gpu(_call: Call, _gpu_id: int) -> Any:
        """It says that it did."""

    return {("state", "release_gpu"): release_gpu}


def _isolation_only_says_so(_: Path) -> Answers:
    async def holds(_call: Call, _network: Any, _proxy: Any) -> Any:
        return IsolationReport(True, ("none",))

    return {("isolation", "ensure"): holds, ("isolation", "verify"): holds}


SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage("recovery sees nothing", "stop", "nothing_in_limbo", _recovery_sees_nothing, recovery_only=True),
    Sabotage("events are not heard", "death", "what_runs_is_whole", _events_are_not_heard),
    Sabotage("GPUs are shared", "create", "one_session_per_gpu", _gpus_are_shared),
    Sabotage("no GPU is ever free", "create", "liveness", _no_gpu_is_ever_free, recovery_only=True),
    Sabotage("records are forgotten", "death", "nothing_is_forgotten", _records_are_forgotten),
    Sabotage("errors do not say why", "death", "ends_are_complete", _errors_do_not_say_why),
    Sabotage("snapshots are named anew", "stop", "one_final_snapshot", _snapshots_are_named_anew),
    Sabotage("snapshots are not taken", "stop", "one_final_snapshot", _snapshots_are_not_taken),
    Sabotage("workspaces go with their session", "stop", "nothing_is_lost", _workspaces_go_with_their_session),
    Sabotage("workspaces come in pairs", "create", "everything_has_a_row", _workspaces_come_in_pairs),
    Sabotage("containers are not removed", "stop", "nothing_is_left", _containers_are_not_removed),
    Sabotage("all containers are removed", "stop", "bystanders", _all_containers_are_removed),
    Sabotage(
        "processes are not looked at", "process stays on the GPU", "gpus_are_explained", _processes_are_not_looked_at
    ),
    Sabotage("quarantines do not end", "GPU is let go", "quarantines_have_a_cause", _quarantines_do_not_end),
    Sabotage("isolation only says so", "create", "what_runs_is_isolated", _isolation_only_says_so),
)
