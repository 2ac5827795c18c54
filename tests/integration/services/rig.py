"""Owns the services put together over simulated adapters and a real database, as the daemon does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import UUID, uuid4

from medforged.adapters.clock import SystemClock
from medforged.adapters.selection import Adapters
from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.gpus import SimulatedGpuDriver
from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.adapters.simulated.readiness import SimulatedReadiness
from medforged.adapters.simulated.workspaces import Moment, Operation, SimulatedWorkspaceStore
from medforged.adapters.sqlite import SqliteState, open_database
from medforged.bootstrap import Parts, as_they_are
from medforged.domain.containers import ContainerLimits, NetworkSpec
from medforged.domain.errors import ContainerUnavailable, StateError, WorkspaceError
from medforged.domain.packs import DEFAULT_PACK_ID, Pack
from medforged.domain.sessions import Session, Tier
from medforged.services.changes import ChangeFeed
from medforged.services.creation import SessionCreation
from medforged.services.ending import SessionEnding
from medforged.services.events import EventLoop
from medforged.services.gpus import GpuWatch
from medforged.services.isolation import IsolationGuard
from medforged.services.journal import Journal
from medforged.services.locks import SessionLocks
from medforged.services.loops import GpuLoop, IsolationLoop
from medforged.services.orphans import OrphanSearch
from medforged.services.plan import SessionPlan
from medforged.services.reconcile import Reconciliation
from medforged.services.records import Records
from medforged.services.recovery import RecoveryLoop
from medforged.services.release import GpuRelease
from medforged.services.settling import SessionSettling
from medforged.services.tasks import BackgroundTasks
from tests.fakes.processes import FakeProcessTable

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


@dataclass(frozen=True)
class Timing:
    """Seconds; the names are those of the daemon's settings."""

    start_timeout: float = 5
    stop_grace: float = 1
    starting_deadline: float = 30
    stopping_deadline: float = 30
    step_timeout: float = 10
    release_patience: float = 0.2
    poll_interval: float = 30
    poll_backoff_max: float = 300
    isolation_interval: float = 3
    isolation_probe_interval: float = 60
    gpu_poll_interval: float = 5


@dataclass(frozen=True)
class Makers:
    """What each service is made by. A test that wants to see what a broken service leads to names another class."""

    records: type[Records] = Records
    feed: type[ChangeFeed] = ChangeFeed
    guard: type[IsolationGuard] = IsolationGuard
    proof: type[GpuRelease] = GpuRelease
    watch: type[GpuWatch] = GpuWatch
    ending: type[SessionEnding] = SessionEnding
    creation: type[SessionCreation] = SessionCreation
    settling: type[SessionSettling] = SessionSettling
    reconciliation: type[Reconciliation] = Reconciliation
    recovery: type[RecoveryLoop] = RecoveryLoop
    events: type[EventLoop] = EventLoop
    orphans: type[OrphanSearch] = OrphanSearch


@dataclass
class Services:
    """A daemon without its socket. `isolation_loop`, `gpu_loop`, `recovery` and `events` do nothing until they run."""

    watch: GpuWatch
    guard: IsolationGuard
    feed: ChangeFeed
    locks: SessionLocks
    records: Records
    creation: SessionCreation
    ending: SessionEnding
    settling: SessionSettling
    reconciliation: Reconciliation
    recovery: RecoveryLoop
    events: EventLoop
    isolation_loop: IsolationLoop
    gpu_loop: GpuLoop
    orphans: OrphanSearch
    tasks: BackgroundTasks


@dataclass
class Rig(Services):
    """The services and their parts, for a test to look at and to disturb."""

    state: SqliteState
    gpus: SimulatedGpuDriver
    processes: FakeProcessTable
    workspaces: SimulatedWorkspaceStore
    faults: WorkspaceFaults
    containers: SimulatedRuntime
    readiness: SimulatedReadiness
    isolation: SimulatedIsolation
    clock: ShiftedClock

    async def create(self, user: UUID | None = None, *, tier: Tier = Tier.PUBLIC, pack: UUID | None = None) -> Session:
        return await self.creation.create(user_id=user or uuid4(), tier=tier, pack_id=pack, max_concurrent_sessions=1)

    async def settle(self) -> None:
        """Let background work end by itself."""
        async with asyncio.timeout(30):
            await self.tasks.settle()


def put_together(parts: Parts, timing: Timing, make: Makers) -> Services:
    """As the composition root does it, with nothing of the socket."""
    state, adapters, clock = parts.state, parts.adapters, parts.clock
    journal, feed, locks = Journal(), make.feed(), SessionLocks()
    records, tasks = make.records(state, feed), BackgroundTasks(journal, clock)
    guard = make.guard(adapters.isolation, adapters.containers, NETWORK, PROXY, clock, journal)
    proof = make.proof(adapters.gpus, parts.processes, clock, patience_seconds=timing.release_patience)
    watch = make.watch(
        driver=adapters.gpus,
        state=state,
        records=records,
        containers=adapters.containers,
        release=proof,
        journal=journal,
    )
    plan = SessionPlan(
        packs=(Pack(DEFAULT_PACK_ID, "default", IMAGE),),
        network=NETWORK.name,
        limits=ContainerLimits(memory_bytes=1 << 30, shm_bytes=1 << 26, cpus=1.0, pids=128),
        quota_bytes=None,
        gpus_simulated=True,
        start_timeout_seconds=timing.start_timeout,
        stop_grace_seconds=timing.stop_grace,
    )
    ending = make.ending(
        records=records,
        workspaces=adapters.workspaces,
        containers=adapters.containers,
        release=proof,
        locks=locks,
        clock=clock,
        journal=journal,
        tasks=tasks,
        stop_grace_seconds=timing.stop_grace,
        step_seconds=timing.step_timeout,
        deadline_seconds=timing.stopping_deadline,
    )
    creation = make.creation(
        records=records,
        workspaces=adapters.workspaces,
        containers=adapters.containers,
        readiness=adapters.readiness,
        isolation=guard,
        ending=ending,
        plan=plan,
        locks=locks,
        clock=clock,
        journal=journal,
        deadline_seconds=timing.starting_deadline,
        step_seconds=timing.step_timeout,
    )
    settling = make.settling(
        records=records,
        containers=adapters.containers,
        readiness=adapters.readiness,
        isolation=guard,
        ending=ending,
        locks=locks,
        clock=clock,
        journal=journal,
        tasks=tasks,
        start_timeout_seconds=timing.start_timeout,
        starting_deadline_seconds=timing.starting_deadline,
        step_seconds=timing.step_timeout,
    )
    reconciliation = make.reconciliation(
        records=records,
        containers=adapters.containers,
        settling=settling,
        gpus=watch,
        locks=locks,
        clock=clock,
        journal=journal,
    )
    recovery = make.recovery(reconciliation, clock, journal, timing.poll_interval, timing.poll_backoff_max)
    isolation_loop = IsolationLoop(
        guard,
        adapters.isolation,
        records,
        clock,
        journal,
        partial(recovery.answers, ContainerUnavailable),
        interval_seconds=timing.isolation_interval,
        probe_interval_seconds=timing.isolation_probe_interval,
    )
    return Services(
        watch=watch,
        guard=guard,
        feed=feed,
        locks=locks,
        records=records,
        creation=creation,
        ending=ending,
        settling=settling,
        reconciliation=reconciliation,
        recovery=recovery,
        events=make.events(
            containers=adapters.containers,
            records=records,
            settling=settling,
            relist=recovery.wake,
            network_changed=isolation_loop.nudge,
            clock=clock,
            journal=journal,
        ),
        isolation_loop=isolation_loop,
        gpu_loop=GpuLoop(
            watch,
            adapters.gpus,
            clock,
            journal,
            partial(recovery.answers, StateError),
            interval_seconds=timing.gpu_poll_interval,
        ),
        orphans=make.orphans(
            records=records,
            containers=adapters.containers,
            workspaces=adapters.workspaces,
            isolation=adapters.isolation,
            network=NETWORK.name,
            proxy=PROXY,
            journal=journal,
        ),
        tasks=tasks,
    )


@asynccontextmanager
async def open_rig(
    directory: Path,
    *,
    gpus: int = 2,
    containers: SimulatedRuntime | None = None,
    workspaces: SimulatedWorkspaceStore | None = None,
    gpus_driver: SimulatedGpuDriver | None = None,
    isolation: SimulatedIsolation | None = None,
    host: SimulatedHost | None = None,
    around: Callable[[Parts], Parts] = as_they_are,
    deadline_seconds: float = 30,
    step_seconds: float = 10,
) -> AsyncIterator[Rig]:
    """Services over a database in `directory`; given adapters, or a given host, stand for what outlived the daemon.

    No loop runs until a test lets it.
    """
    clock, faults, host, processes = ShiftedClock(), WorkspaceFaults(), host or SimulatedHost(), FakeProcessTable()
    state = SqliteState(*await open_database(directory))
    driver = gpus_driver or SimulatedGpuDriver(gpus, host=host)
    containers = containers or SimulatedRuntime(host=host)
    workspaces = workspaces or SimulatedWorkspaceStore(clock, faults=faults, host=host)
    readiness, isolation = SimulatedReadiness(), isolation or SimulatedIsolation(host=host)
    adapters = Adapters(
        gpus=driver, workspaces=workspaces, containers=containers, readiness=readiness, isolation=isolation
    )
    timing = Timing(starting_deadline=deadline_seconds, stopping_deadline=deadline_seconds, step_timeout=step_seconds)
    services = put_together(around(Parts(state, adapters, processes, clock)), timing, Makers())
    rig = Rig(
        **{each.name: getattr(services, each.name) for each in fields(services)},
        state=state,
        gpus=driver,
        processes=processes,
        workspaces=workspaces,
        faults=faults,
        containers=containers,
        readiness=readiness,
        isolation=isolation,
        clock=clock,
    )
    await workspaces.prepare()
    await services.watch.refresh()
    await services.guard.establish()
    try:
        yield rig
    finally:
        await services.tasks.drain(5)
        await state.close()
