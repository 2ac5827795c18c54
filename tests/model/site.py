"""Owns a simulated host with a daemon on it, on a loop whose time stands still: what a step of the model acts upon."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch
from uuid import UUID

from structlog.testing import capture_logs

from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.gpus import SimulatedGpuDriver
from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.adapters.simulated.readiness import SimulatedReadiness
from medforged.adapters.simulated.workspaces import SimulatedWorkspaceStore
from medforged.adapters.sqlite import SqliteState
from medforged.config import Containers, Gpus, Sessions
from medforged.domain.sessions import Session
from medforged.ports.parts import Adapters, Parts
from medforged.services.assembly import Makers, Services, Timing, assemble
from tests.fakes.processes import FakeProcessTable
from tests.integration.services.rig import NETWORK, PROXY, plan
from tests.model.database import Database
from tests.model.loop import SteppedClock, SteppedLoop
from tests.model.parts import Disk, Lifeline, StateFaults, between

__all__ = ["GPUS", "Daemon", "Site", "Watcher"]

GPUS = 3
# What an engine and an IDE need, so that something can come between.
_ENGINE_SECONDS = 0.01
_IDE_SECONDS = 0.4
# As the daemon's process ends (medforged/daemon.py).
_DRAIN_SECONDS = 8.0
_SESSIONS, _CONTAINERS = Sessions(), Containers()
# The model keeps the times that the product has by default.
_PLAN = plan(start_timeout=_CONTAINERS.start_timeout_seconds, stop_grace=_CONTAINERS.stop_grace_seconds)
_TIMING = Timing(
    starting_deadline=_SESSIONS.starting_deadline_seconds,
    stopping_deadline=_SESSIONS.stopping_deadline_seconds,
    step_timeout=_SESSIONS.step_timeout_seconds,
    release_patience=Gpus().release_patience_seconds,
    poll_interval=_SESSIONS.poll_interval_seconds,
    poll_backoff_max=_SESSIONS.poll_backoff_max_seconds,
    isolation_interval=_SESSIONS.isolation_interval_seconds,
    isolation_probe_interval=_SESSIONS.isolation_probe_interval_seconds,
    gpu_poll_interval=Gpus().poll_interval_seconds,
)


@dataclass
class Watcher:
    """Somebody at the daemon's watch stream: what it was told, and the newest revision of each session."""

    revisions: list[int] = field(default_factory=list)
    newest: dict[UUID, Session] = field(default_factory=dict)

    def told(self, session: Session) -> None:
        self.revisions.append(session.revision)
        self.newest[session.id] = session


@dataclass
class Daemon:
    """One life of the daemon."""

    services: Services
    state: SqliteState
    lifeline: Lifeline
    watcher: Watcher
    loops: list[asyncio.Task[Any]] = field(default_factory=list)
    calls: set[asyncio.Task[Any]] = field(default_factory=set)


class Site:
    """The host outlives its daemons. Everything here is synchronous: it lets the loop run as far as it says."""

    def __init__(self, database: Database, make: Makers) -> None:
        self._make = make
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(_repeatable())
        self.journal: list[Any] = self._stack.enter_context(capture_logs())
        self._told: dict[str, dict[UUID, list[Any]]] = {}
        self._read = 0
        self.loop = SteppedLoop()
        self.clock = SteppedClock(self.loop)
        self.host = SimulatedHost()
        self.database = database
        self.state_faults = StateFaults()
        self.disk = Disk()
        self.processes = FakeProcessTable()
        self.gpus = SimulatedGpuDriver(GPUS, host=self.host)
        self.containers = SimulatedRuntime(latency_seconds=_ENGINE_SECONDS, host=self.host)
        self.workspaces = SimulatedWorkspaceStore(self.clock, faults=self.disk, host=self.host)
        self.readiness = SimulatedReadiness(latency_seconds=_IDE_SECONDS)
        self.isolation = SimulatedIsolation(host=self.host)
        self._errands: set[asyncio.Task[Any]] = set()
        self.daemon = self.loop.complete(self._start(), within=30)

    @property
    def services(self) -> Services:
        return self.daemon.services

    def told(self, event: str) -> dict[UUID, list[Any]]:
        """The journal's lines of this event, by the session that they are about."""
        for line in self.journal[self._read :]:
            if "session_id" in line:
                self._told.setdefault(line["event"], {}).setdefault(UUID(line["session_id"]), []).append(line)
        self._read = len(self.journal)
        return self._told.get(event, {})

    def call(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """As the socket's server runs a method: to its end, whether or not the caller stays."""
        task = self.loop.create_task(work)
        self.daemon.calls.add(task)
        task.add_done_callback(self.daemon.calls.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left who asks
        return task

    def kill(self) -> None:
        """SIGKILL, and the next daemon starts."""
        self.daemon.lifeline.cut()
        self._end(self.daemon)
        self.daemon = self.loop.complete(self._start(), within=30)

    def restart(self) -> None:
        """SIGTERM, an end in order, and the next daemon starts."""
        self.loop.complete(self._drain(self.daemon), within=4 * _DRAIN_SECONDS)
        self.daemon.lifeline.cut()
        self._end(self.daemon)
        self.daemon = self.loop.complete(self._start(), within=30)

    def close(self) -> None:
        self.daemon.lifeline.cut()
        self._end(self.daemon)
        self.loop.cancel_all(but=set())
        self.loop.complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self._stack.close()

    async def _start(self) -> Daemon:
        """The order is the composition root's."""
        state, lifeline = self.database.open(), Lifeline(self._errands)
        adapters = Adapters(
            gpus=self.gpus,
            workspaces=self.workspaces,
            containers=self.containers,
            readiness=self.readiness,
            isolation=self.isolation,
        )
        seen, reached, processes = between(lifeline, state, adapters, self.processes, self.state_faults)
        services = assemble(Parts(seen, reached, processes, self.clock), _PLAN, NETWORK, PROXY, _TIMING, self._make)
        daemon = Daemon(services, state, lifeline, Watcher())
        await reached.containers.ping()
        await reached.workspaces.prepare()
        await services.prepare()
        daemon.loops = [*services.start_loops(), asyncio.ensure_future(self._watch(daemon))]
        return daemon

    async def _watch(self, daemon: Daemon) -> None:
        """As WatchStream does it: subscribe first, then read the database."""
        with daemon.services.feed.subscribe() as subscription:
            for session in await daemon.state.active():
                daemon.watcher.newest[session.id] = session
            while True:
                for session in await subscription.take(3600):
                    daemon.watcher.told(session)

    async def _drain(self, daemon: Daemon) -> None:
        """As the daemon's process ends; the lifeline is cut afterwards."""
        if daemon.calls:
            await asyncio.wait(set(daemon.calls), timeout=_DRAIN_SECONDS)
        for task in set(daemon.calls):
            task.cancel()
        await asyncio.gather(*daemon.calls, return_exceptions=True)
        await daemon.services.tasks.drain(_DRAIN_SECONDS)

    def _end(self, daemon: Daemon) -> None:
        self.loop.cancel_all(but=set(self._errands))
        self.loop.complete(daemon.state.close(), within=1)


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """The same ids and slugs every time: they decide in which order things are listed, and so what comes first.

    They come from the kernel's random source and are to be unguessable, so nobody could be given another one.
    """
    source = random.Random(0)
    with patch("os.urandom", source.randbytes), patch("random._urandom", source.randbytes):
        yield
