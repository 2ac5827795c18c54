"""Owns the services put together over simulated adapters and a real database, as the daemon does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import UUID, uuid4

from medforged.adapters.clock import SystemClock
from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.gpus import SimulatedGpuDriver
from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.adapters.simulated.readiness import SimulatedReadiness
from medforged.adapters.simulated.workspaces import Moment, Operation, SimulatedWorkspaceStore
from medforged.adapters.sqlite import SqliteState, open_database
from medforged.domain.containers import ContainerLimits, NetworkSpec
from medforged.domain.errors import WorkspaceError
from medforged.domain.packs import DEFAULT_PACK_ID, Pack
from medforged.domain.sessions import Session, Tier
from medforged.services.changes import ChangeFeed
from medforged.services.creation import SessionCreation
from medforged.services.ending import SessionEnding
from medforged.services.gpus import GpuWatch
from medforged.services.isolation import IsolationGuard
from medforged.services.journal import Journal
from medforged.services.locks import SessionLocks
from medforged.services.plan import SessionPlan
from medforged.services.reconcile import Reconciliation
from medforged.services.records import Records
from medforged.services.tasks import BackgroundTasks

IMAGE = f"pack@sha256:{'1' * 64}"
NETWORK = NetworkSpec(
    "mf-test", IPv4Network("10.9.0.0/24"), IPv4Address("10.9.0.1"), IPv4Network("10.9.0.128/25"), "mf-test"
)
PROXY = IPv4Address("10.9.0.2")


class ShiftedClock(SystemClock):
    """The real clock with an offset that a test sets, and sleeps that only let others run."""

    def __init__(self) -> None:
        self.offset = timedelta()
        self.slept: list[float] = []

    def now(self) -> datetime:
        return super().now() + self.offset

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@dataclass
class WorkspaceFaults:
    """The next call of an operation fails, before or after it took effect."""

    waiting: list[tuple[Operation, Moment, str]] = field(default_factory=list)

    def fail(self, operation: Operation, reason: str, moment: Moment = Moment.BEFORE) -> None:
        self.waiting.append((operation, moment, reason))

    async def __call__(self, operation: Operation, moment: Moment) -> None:
        for fault in self.waiting:
            if fault[:2] == (operation, moment):
                self.waiting.remove(fault)
                raise WorkspaceError(f"cannot {operation.value} the workspace: {fault[2]}")


@dataclass
class Rig:
    """The parts, for a test to look at and to disturb."""

    state: SqliteState
    gpus: SimulatedGpuDriver
    watch: GpuWatch
    workspaces: SimulatedWorkspaceStore
    faults: WorkspaceFaults
    containers: SimulatedRuntime
    readiness: SimulatedReadiness
    isolation: SimulatedIsolation
    guard: IsolationGuard
    clock: ShiftedClock
    feed: ChangeFeed
    locks: SessionLocks
    creation: SessionCreation
    ending: SessionEnding
    reconciliation: Reconciliation
    tasks: BackgroundTasks

    async def create(self, user: UUID | None = None, *, tier: Tier = Tier.PUBLIC, pack: UUID | None = None) -> Session:
        return await self.creation.create(user_id=user or uuid4(), tier=tier, pack_id=pack, max_concurrent_sessions=1)

    async def settle(self) -> None:
        """Let background work end by itself."""
        await self.tasks.drain(30)


@asynccontextmanager
async def open_rig(
    directory: Path,
    *,
    gpus: int = 2,
    containers: SimulatedRuntime | None = None,
    workspaces: SimulatedWorkspaceStore | None = None,
) -> AsyncIterator[Rig]:
    """Services over a database in `directory`; given adapters stand for a host that outlived the daemon."""
    clock, journal, feed, locks, faults = ShiftedClock(), Journal(), ChangeFeed(), SessionLocks(), WorkspaceFaults()
    state = SqliteState(*await open_database(directory))
    driver = SimulatedGpuDriver(gpus)
    containers = containers or SimulatedRuntime()
    workspaces = workspaces or SimulatedWorkspaceStore(clock, faults=faults)
    readiness, isolation = SimulatedReadiness(), SimulatedIsolation()
    records, tasks = Records(state, feed), BackgroundTasks(journal)
    guard = IsolationGuard(isolation, containers, NETWORK, PROXY, clock, journal)
    watch = GpuWatch(driver, state, journal)
    plan = SessionPlan(
        packs=(Pack(DEFAULT_PACK_ID, "default", IMAGE),),
        network=NETWORK.name,
        limits=ContainerLimits(memory_bytes=1 << 30, shm_bytes=1 << 26, cpus=1.0, pids=128),
        quota_bytes=None,
        gpus_simulated=True,
        start_timeout_seconds=5,
        stop_grace_seconds=1,
    )
    ending = SessionEnding(
        records=records,
        workspaces=workspaces,
        containers=containers,
        locks=locks,
        clock=clock,
        journal=journal,
        tasks=tasks,
        stop_grace_seconds=1,
    )
    rig = Rig(
        state=state,
        gpus=driver,
        watch=watch,
        workspaces=workspaces,
        faults=faults,
        containers=containers,
        readiness=readiness,
        isolation=isolation,
        guard=guard,
        clock=clock,
        feed=feed,
        locks=locks,
        creation=SessionCreation(
            records=records,
            workspaces=workspaces,
            containers=containers,
            readiness=readiness,
            isolation=guard,
            plan=plan,
            locks=locks,
            clock=clock,
            journal=journal,
        ),
        ending=ending,
        reconciliation=Reconciliation(
            records=records,
            containers=containers,
            readiness=readiness,
            ending=ending,
            locks=locks,
            clock=clock,
            journal=journal,
            start_timeout_seconds=5,
        ),
        tasks=tasks,
    )
    await workspaces.prepare()
    await watch.refresh()
    await guard.establish()
    try:
        yield rig
    finally:
        await tasks.drain(5)
        await state.close()
