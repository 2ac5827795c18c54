"""Owns the composition root: settings -> adapters -> services -> socket. The only file that knows all of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import structlog

from medforged.adapters.clock import SystemClock
from medforged.adapters.procfs import ProcfsProcessTable
from medforged.adapters.selection import Adapters, containers_of, isolation_of, select_adapters
from medforged.adapters.sqlite import SqliteState, open_database
from medforged.config import Settings, network_of, packs_of
from medforged.contract.exitcodes import ExitCode
from medforged.domain.containers import ContainerLimits, NetworkSpec
from medforged.domain.errors import (
    ContainerError,
    ContainerUnavailable,
    IsolationError,
    StartupFailed,
    StateError,
    WorkspaceError,
)
from medforged.ports.clock import Clock
from medforged.ports.processes import ProcessTable
from medforged.ports.state import StateStore
from medforged.rpc.access import policy_for
from medforged.rpc.handlers.daemon import DaemonHandlers
from medforged.rpc.handlers.gpus import GpuHandlers
from medforged.rpc.handlers.orphans import OrphanHandlers
from medforged.rpc.handlers.packs import PackHandlers
from medforged.rpc.handlers.sessions import SessionHandlers
from medforged.rpc.server import Handler, RpcServer
from medforged.rpc.watch import WatchStream
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

__all__ = ["Host", "Parts", "as_they_are", "build", "release"]


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything through which the services touch the world."""

    state: StateStore
    adapters: Adapters
    processes: ProcessTable
    clock: Clock


def as_they_are(parts: Parts) -> Parts:
    """Nothing between the services and the parts."""
    return parts


@dataclass(frozen=True, slots=True)
class Host:
    """A daemon that is put together: what answers, what runs, and how to take it apart."""

    server: RpcServer
    tasks: BackgroundTasks
    recovery: RecoveryLoop
    events: EventLoop
    isolation: IsolationLoop
    gpus: GpuLoop
    close: Callable[[], Awaitable[None]]

    def start_loops(self, alive: Callable[[], None], watchdog_seconds: float | None) -> list[asyncio.Task[None]]:
        """Start everything that runs for as long as the daemon. None of them ever ends by itself."""
        loop = asyncio.get_running_loop()
        loops = [
            loop.create_task(self.recovery.run(), name="recovery"),
            loop.create_task(self.events.run(), name="events"),
            loop.create_task(self.isolation.run(), name="isolation"),
            loop.create_task(self.gpus.run(), name="gpus"),
        ]
        if watchdog_seconds is not None:
            loops.append(loop.create_task(_feed_watchdog(alive, watchdog_seconds / 2), name="watchdog"))
        return loops


async def build(settings: Settings, *, around: Callable[[Parts], Parts] = as_they_are) -> Host:
    """Put the daemon together and bring the host into the state that sessions need.

    `around` may put something between the services and the parts: how tests watch and interrupt every single step.

    Raises StartupFailed. Isolation that cannot be established is no reason not to start: no session starts, status and
    health say why, and it is tried again all the time.
    """
    async with contextlib.AsyncExitStack() as stack:
        state = SqliteState(*await open_database(Path(settings.daemon.state_directory)))
        stack.push_async_callback(state.close)
        try:
            adapters = await select_adapters(settings)
            stack.push_async_callback(adapters.close)
            await adapters.containers.ping()
            await adapters.workspaces.prepare()
        except (ContainerError, WorkspaceError) as error:
            raise StartupFailed(str(error), ExitCode.UNAVAILABLE) from error
        parts = around(Parts(state, adapters, ProcfsProcessTable(), SystemClock()))
        return await _wire(settings, parts, stack)


async def _wire(settings: Settings, parts: Parts, stack: contextlib.AsyncExitStack) -> Host:
    state, adapters, clock = parts.state, parts.adapters, parts.clock
    journal, feed, locks = Journal(), ChangeFeed(), SessionLocks()
    records, tasks = Records(state, feed), BackgroundTasks(journal, clock)
    for adapter in adapters.descriptions():
        journal.note(
            "adapter.chosen", port=adapter.port, adapter=adapter.adapter, real=adapter.real, reason=adapter.reason
        )
    proxy = network_of(settings.network)[1]
    guard = IsolationGuard(adapters.isolation, adapters.containers, _network(settings), proxy, clock, journal)
    proof = GpuRelease(adapters.gpus, parts.processes, clock, patience_seconds=settings.gpus.release_patience_seconds)
    watch = GpuWatch(
        driver=adapters.gpus,
        state=state,
        records=records,
        containers=adapters.containers,
        release=proof,
        journal=journal,
    )
    await asyncio.gather(watch.refresh(), guard.establish())
    plan = _plan(settings, gpus_simulated=not adapters.gpus.describe().real)
    limits = settings.sessions
    ending = SessionEnding(
        records=records,
        workspaces=adapters.workspaces,
        containers=adapters.containers,
        release=proof,
        locks=locks,
        clock=clock,
        journal=journal,
        tasks=tasks,
        stop_grace_seconds=settings.containers.stop_grace_seconds,
        step_seconds=limits.step_timeout_seconds,
        deadline_seconds=limits.stopping_deadline_seconds,
    )
    creation = SessionCreation(
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
        deadline_seconds=limits.starting_deadline_seconds,
        step_seconds=limits.step_timeout_seconds,
    )
    settling = SessionSettling(
        records=records,
        containers=adapters.containers,
        readiness=adapters.readiness,
        isolation=guard,
        ending=ending,
        locks=locks,
        clock=clock,
        journal=journal,
        tasks=tasks,
        start_timeout_seconds=settings.containers.start_timeout_seconds,
        starting_deadline_seconds=limits.starting_deadline_seconds,
        step_seconds=limits.step_timeout_seconds,
    )
    reconciliation = Reconciliation(
        records=records,
        containers=adapters.containers,
        settling=settling,
        gpus=watch,
        locks=locks,
        clock=clock,
        journal=journal,
    )
    recovery = RecoveryLoop(
        reconciliation, clock, journal, limits.poll_interval_seconds, limits.poll_backoff_max_seconds
    )
    isolation = IsolationLoop(
        guard,
        adapters.isolation,
        records,
        clock,
        journal,
        partial(recovery.answers, ContainerUnavailable),
        interval_seconds=limits.isolation_interval_seconds,
        probe_interval_seconds=limits.isolation_probe_interval_seconds,
    )
    events = EventLoop(
        containers=adapters.containers,
        records=records,
        settling=settling,
        relist=recovery.wake,
        network_changed=isolation.nudge,
        clock=clock,
        journal=journal,
    )
    orphans = OrphanSearch(
        records=records,
        containers=adapters.containers,
        workspaces=adapters.workspaces,
        isolation=adapters.isolation,
        network=settings.network.name,
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
    daemon = DaemonHandlers(
        health=health,
        state=state,
        adapters=adapters.descriptions,
        instance=settings.daemon.instance,
        started_at=clock.now(),
    )
    sessions = SessionHandlers(creation, ending, recovery, orphans, state, adapters.containers)
    gpus = GpuHandlers(watch, state)
    orphaned = OrphanHandlers(orphans)
    handlers: dict[str, Handler] = {
        "daemon.status": daemon.status,
        "daemon.health": daemon.health,
        "gpus.list": gpus.list,
        "gpus.enable": gpus.enable,
        "gpus.disable": gpus.disable,
        "gpus.recheck": gpus.recheck,
        "orphans.list": orphaned.list,
        "orphans.remove": orphaned.remove,
        "packs.list": PackHandlers(plan.packs).list,
        "sessions.create": sessions.create,
        "sessions.get": sessions.get,
        "sessions.list": sessions.list,
        "sessions.stop": sessions.stop,
        "sessions.logs": sessions.logs,
        "sessions.reconcile": sessions.reconcile,
    }
    policy = policy_for(settings.daemon.facade_user, settings.daemon.operator_group)
    return Host(
        server=RpcServer(handlers, WatchStream(state, feed, lambda: recovery.alive), policy),
        tasks=tasks,
        recovery=recovery,
        events=events,
        isolation=isolation,
        gpus=GpuLoop(
            watch,
            adapters.gpus,
            clock,
            journal,
            partial(recovery.answers, StateError),
            interval_seconds=settings.gpus.poll_interval_seconds,
        ),
        close=stack.pop_all().aclose,
    )


async def release(settings: Settings) -> None:
    """Take this installation's firewall chains, port settings and network off the host.

    Raises StartupFailed while sessions' containers exist: without the rules they would not be kept apart.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            # Not the workspaces' storage: rules and network can go without it.
            containers, isolation = containers_of(settings), isolation_of(settings)
            stack.push_async_callback(containers.close)
            stack.push_async_callback(isolation.close)
            await containers.ping()
            left = [info.name for info in await containers.containers()]
            if left:
                raise StartupFailed(
                    f"cannot release the host: {', '.join(sorted(left))} still exist; stop their sessions first",
                    ExitCode.TEMPORARY,
                )
            network = await containers.ensure_network(_network(settings))
            await isolation.remove(network)
            await containers.remove_network(network.name)
        except (ContainerError, IsolationError) as error:
            raise StartupFailed(str(error), ExitCode.UNAVAILABLE) from error
    structlog.get_logger("medforged").info("host.released", instance=settings.daemon.instance)


def _network(settings: Settings) -> NetworkSpec:
    subnet, _ = network_of(settings.network)
    # The lower half holds the fixed addresses: gateway, Caddy, the reserved one and those of the probes.
    return NetworkSpec(
        name=settings.network.name,
        subnet=subnet,
        gateway=IPv4Address(int(subnet.network_address) + 1),
        dynamic_range=list(subnet.subnets())[1],
        bridge=settings.network.bridge,
    )


def _plan(settings: Settings, *, gpus_simulated: bool) -> SessionPlan:
    limits = settings.containers
    return SessionPlan(
        packs=packs_of(settings),
        network=settings.network.name,
        limits=ContainerLimits(
            memory_bytes=limits.memory_bytes,
            shm_bytes=limits.shm_bytes,
            cpus=min(limits.cpus, float(os.cpu_count() or 1)),
            pids=limits.pids,
        ),
        quota_bytes=settings.workspaces.quota_bytes or None,
        gpus_simulated=gpus_simulated,
        start_timeout_seconds=limits.start_timeout_seconds,
        stop_grace_seconds=limits.stop_grace_seconds,
    )


async def _feed_watchdog(alive: Callable[[], None], interval_seconds: float) -> None:
    while True:
        alive()
        await asyncio.sleep(interval_seconds)
