"""Owns how the services depend on each other: one set of them, put together over given parts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

from medforged.domain.containers import NetworkSpec
from medforged.domain.errors import ContainerUnavailable, StateError
from medforged.ports.parts import Parts
from medforged.services.changes import ChangeFeed
from medforged.services.creation import SessionCreation
from medforged.services.ending import SessionEnding
from medforged.services.events import EventLoop
from medforged.services.gpus import GpuWatch
from medforged.services.health import HealthCheck
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

__all__ = ["Makers", "Services", "Timing", "assemble"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds, by the names of the daemon's settings. What containers are given as well is in the plan."""

    starting_deadline: float
    stopping_deadline: float
    step_timeout: float
    release_patience: float
    poll_interval: float
    poll_backoff_max: float
    isolation_interval: float
    isolation_probe_interval: float
    gpu_poll_interval: float


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one daemon. Nothing happens by itself before the loops are started."""

    journal: Journal
    watch: GpuWatch
    guard: IsolationGuard
    feed: ChangeFeed
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
    health: HealthCheck
    tasks: BackgroundTasks

    async def prepare(self) -> None:
        """Look at the GPUs, and bring isolation about. Raises StateError.

        A driver or an isolation that fails raises nothing: it is a problem of health, and is tried again all the time.
        """
        await asyncio.gather(self.watch.refresh(), self.guard.establish())

    def start_loops(self) -> list[asyncio.Task[None]]:
        """Start what runs for as long as the daemon. None of them ever ends by itself."""
        loop = asyncio.get_running_loop()
        return [
            loop.create_task(self.recovery.run(), name="recovery"),
            loop.create_task(self.events.run(), name="events"),
            loop.create_task(self.isolation_loop.run(), name="isolation"),
            loop.create_task(self.gpu_loop.run(), name="gpus"),
        ]


_AS_THEY_ARE = Makers()


def assemble(
    parts: Parts,
    plan: SessionPlan,
    network: NetworkSpec,
    proxy: IPv4Address,
    timing: Timing,
    make: Makers = _AS_THEY_ARE,
) -> Services:
    """Services over `parts` that nothing has been asked of yet; `proxy` is the address in `network` that may reach all
    sessions.
    """
    state, adapters, clock = parts.state, parts.adapters, parts.clock
    journal, feed, locks = Journal(), make.feed(), SessionLocks()
    records, tasks = make.records(state, feed), BackgroundTasks(journal, clock)
    guard = make.guard(adapters.isolation, adapters.containers, network, proxy, clock, journal)
    proof = make.proof(adapters.gpus, parts.processes, clock, patience_seconds=timing.release_patience)
    watch = make.watch(
        driver=adapters.gpus,
        state=state,
        records=records,
        containers=adapters.containers,
        release=proof,
        journal=journal,
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
        stop_grace_seconds=plan.stop_grace_seconds,
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
        start_timeout_seconds=plan.start_timeout_seconds,
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
    gpu_loop = GpuLoop(
        watch,
        adapters.gpus,
        clock,
        journal,
        partial(recovery.answers, StateError),
        interval_seconds=timing.gpu_poll_interval,
    )
    events = make.events(
        containers=adapters.containers,
        records=records,
        settling=settling,
        relist=recovery.wake,
        network_changed=isolation_loop.nudge,
        clock=clock,
        journal=journal,
    )
    orphans = make.orphans(
        records=records,
        containers=adapters.containers,
        workspaces=adapters.workspaces,
        isolation=adapters.isolation,
        network=network.name,
        proxy=proxy,
        journal=journal,
    )
    health = HealthCheck(
        recovery=recovery,
        events=events,
        isolation=guard,
        containers=adapters.containers,
        gpus=watch,
        state=state,
        packs=plan.packs,
    )
    return Services(
        journal=journal,
        watch=watch,
        guard=guard,
        feed=feed,
        records=records,
        creation=creation,
        ending=ending,
        settling=settling,
        reconciliation=reconciliation,
        recovery=recovery,
        events=events,
        isolation_loop=isolation_loop,
        gpu_loop=gpu_loop,
        orphans=orphans,
        health=health,
        tasks=tasks,
    )
