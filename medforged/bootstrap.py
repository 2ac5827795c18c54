"""Owns the composition root: settings -> adapters -> services -> socket. The only file that knows all of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from medforged.adapters.clock import SystemClock
from medforged.adapters.procfs import ProcfsProcessTable
from medforged.adapters.selection import containers_of, isolation_of, select_adapters
from medforged.adapters.sqlite import SqliteState, open_database
from medforged.calls.access import policy_for
from medforged.calls.server import Handler
from medforged.config import Settings, network_of, network_spec, packs_of
from medforged.contract.exitcodes import ExitCode
from medforged.domain.containers import ContainerLimits
from medforged.domain.errors import (
    ContainerError,
    IsolationError,
    StartupFailed,
    WorkspaceError,
)
from medforged.metrics.collection import DaemonMetrics
from medforged.metrics.sessions import SessionTally
from medforged.ports.parts import Parts
from medforged.rpc.handlers.daemon import DaemonHandlers
from medforged.rpc.handlers.gpus import GpuHandlers
from medforged.rpc.handlers.orphans import OrphanHandlers
from medforged.rpc.handlers.packs import PackHandlers
from medforged.rpc.handlers.sessions import SessionHandlers
from medforged.rpc.server import RpcServer
from medforged.rpc.watch import WatchStream
from medforged.services.assembly import Services, Timing, assemble
from medforged.services.plan import SessionPlan

__all__ = ["Host", "as_they_are", "build", "release"]


def as_they_are(parts: Parts) -> Parts:
    """Nothing between the services and the parts."""
    return parts


@dataclass(frozen=True, slots=True)
class Host:
    """A daemon that is put together: what answers, what runs, and how to take it apart."""

    server: RpcServer
    services: Services
    metrics: DaemonMetrics
    close: Callable[[], Awaitable[None]]

    def start_loops(self, alive: Callable[[], None], watchdog_seconds: float | None) -> list[asyncio.Task[None]]:
        """Start everything that runs for as long as the daemon. None of them ever ends by itself."""
        loops = self.services.start_loops()
        if watchdog_seconds is not None:
            feeding = _feed_watchdog(alive, watchdog_seconds / 2)
            loops.append(asyncio.get_running_loop().create_task(feeding, name="watchdog"))
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
        return await _serve(settings, parts, stack)


async def _serve(settings: Settings, parts: Parts, stack: contextlib.AsyncExitStack) -> Host:
    state, adapters = parts.state, parts.adapters
    plan = _plan(settings, gpus_simulated=not adapters.gpus.describe().real)
    services = assemble(parts, plan, network_spec(settings.network), network_of(settings.network)[1], _timing(settings))
    for adapter in adapters.descriptions():
        services.journal.note(
            "adapter.chosen", port=adapter.port, adapter=adapter.adapter, real=adapter.real, reason=adapter.reason
        )
    tally = SessionTally(parts.clock)
    services.feed.listen(tally.note)
    await services.prepare()
    tally.begin(await state.active(), await state.revision())
    daemon = DaemonHandlers(
        health=services.health,
        state=state,
        adapters=adapters.descriptions,
        instance=settings.daemon.instance,
        started_at=parts.clock.now(),
    )
    sessions = SessionHandlers(
        services.creation, services.ending, services.recovery, services.orphans, state, adapters.containers
    )
    gpus = GpuHandlers(services.watch, state)
    orphaned = OrphanHandlers(services.orphans)
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
    server = RpcServer(handlers, WatchStream(state, services.feed, lambda: services.recovery.alive), policy)
    return Host(
        server=server,
        services=services,
        metrics=DaemonMetrics(services, tally, server.answered),
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
            network = await containers.ensure_network(network_spec(settings.network))
            await isolation.remove(network)
            await containers.remove_network(network.name)
        except (ContainerError, IsolationError) as error:
            raise StartupFailed(str(error), ExitCode.UNAVAILABLE) from error
    structlog.get_logger("medforged").info("host.released", instance=settings.daemon.instance)


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


def _timing(settings: Settings) -> Timing:
    return Timing(
        starting_deadline=settings.sessions.starting_deadline_seconds,
        stopping_deadline=settings.sessions.stopping_deadline_seconds,
        step_timeout=settings.sessions.step_timeout_seconds,
        release_patience=settings.gpus.release_patience_seconds,
        poll_interval=settings.sessions.poll_interval_seconds,
        poll_backoff_max=settings.sessions.poll_backoff_max_seconds,
        isolation_interval=settings.sessions.isolation_interval_seconds,
        isolation_probe_interval=settings.sessions.isolation_probe_interval_seconds,
        gpu_poll_interval=settings.gpus.poll_interval_seconds,
    )


async def _feed_watchdog(alive: Callable[[], None], interval_seconds: float) -> None:
    while True:
        alive()
        await asyncio.sleep(interval_seconds)
