"""Owns the services put together over simulated adapters and a real database, as the daemon does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import UUID, uuid4

from medforged.adapters.clock import SystemClock
from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.gpus import SimulatedGpuDriver
from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.adapters.simulated.readiness import SimulatedReadiness
from medforged.adapters.simulated.workspaces import Moment, Operation, SimulatedWorkspaceStore
from medforged.adapters.sqlite import SqliteState, open_database
from medforged.bootstrap import as_they_are
from medforged.domain.containers import ContainerLimits, NetworkSpec
from medforged.domain.errors import WorkspaceError
from medforged.domain.packs import DEFAULT_PACK_ID, Pack
from medforged.domain.sessions import Session, Tier
from medforged.ports.parts import Adapters, Parts
from medforged.services.assembly import Services, Timing, assemble
from medforged.services.plan import SessionPlan
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


def plan(*, start_timeout: float = 5, stop_grace: float = 1) -> SessionPlan:
    """One pack on the rig's network; seconds."""
    return SessionPlan(
        packs=(Pack(DEFAULT_PACK_ID, "default", IMAGE),),
        network=NETWORK.name,
        limits=ContainerLimits(memory_bytes=1 << 30, shm_bytes=1 << 26, cpus=1.0, pids=128),
        quota_bytes=None,
        gpus_simulated=True,
        start_timeout_seconds=start_timeout,
        stop_grace_seconds=stop_grace,
    )


@dataclass(frozen=True, slots=True)
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
    timing = Timing(
        starting_deadline=deadline_seconds,
        stopping_deadline=deadline_seconds,
        step_timeout=step_seconds,
        release_patience=0.2,
        poll_interval=30,
        poll_backoff_max=300,
        isolation_interval=3,
        isolation_probe_interval=60,
        gpu_poll_interval=5,
    )
    services = assemble(around(Parts(state, adapters, processes, clock)), plan(), NETWORK, PROXY, timing)
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
    await services.prepare()
    try:
        yield rig
    finally:
        await services.tasks.drain(5)
        await state.close()
