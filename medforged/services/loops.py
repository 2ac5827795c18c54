"""Owns the loops over isolation and GPUs: woken by events where there are any, by the clock in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from medforged.domain.errors import MedForgeError
from medforged.domain.sessions import SessionStatus
from medforged.ports.clock import Clock
from medforged.ports.gpus import GpuDriver
from medforged.ports.isolation import Isolation
from medforged.services.gpus import GpuWatch
from medforged.services.isolation import IsolationGuard
from medforged.services.journal import Journal
from medforged.services.records import Records
from medforged.services.waiting import first_of

__all__ = ["GpuLoop", "IsolationLoop"]

# Changes come in bursts (a container that starts makes several): so long after the first, all are looked at at once.
_BURST_SECONDS = 0.25


class IsolationLoop:
    """Re-asserts isolation every few seconds and after every change, and proves it with traffic now and then.

    `engine_answers` is called whenever that has shown that the container engine does.
    """

    def __init__(
        self,
        guard: IsolationGuard,
        isolation: Isolation,
        records: Records,
        clock: Clock,
        journal: Journal,
        engine_answers: Callable[[], None],
        *,
        interval_seconds: float,
        probe_interval_seconds: float,
    ) -> None:
        self._guard = guard
        self._isolation = isolation
        self._records = records
        self._clock = clock
        self._journal = journal
        self._engine_answers = engine_answers
        self._interval = interval_seconds
        self._probe_interval = probe_interval_seconds
        self._nudged = asyncio.Event()
        self._reported: str | None = None

    def nudge(self) -> None:
        """Let isolation be re-asserted now: something about the network may have changed."""
        self._nudged.set()

    async def run(self) -> None:
        asserted = proven = self._clock.monotonic()
        while True:
            await first_of(self._isolation.changed(self._interval), self._nudged.wait())
            await self._clock.sleep(min(_BURST_SECONDS, self._interval))
            self._nudged.clear()
            if self._guard.covers_soon and self._clock.monotonic() - asserted < self._interval:
                # The change is that container's, and looking at it now would only hold its start up.
                continue
            asserted = self._clock.monotonic()
            try:
                await self._guard.assert_again(self._report_exposed)
                if self._clock.monotonic() - proven >= self._probe_interval:
                    await self._guard.prove()
                    proven = self._clock.monotonic()
                await self._report_exposed()
                if self._guard.problem is None:
                    # Nobody knows that without asking the engine.
                    self._engine_answers()
            except Exception as error:  # noqa: BLE001 - a defect met once must not leave isolation unattended
                self._journal.failed(None, error=repr(error), exc_info=error, part="isolation")

    async def _report_exposed(self) -> None:
        """Name every running session once, each time isolation is lost for a new reason."""
        problem = self._guard.problem
        if problem is None or problem == self._reported:
            self._reported = problem
            return
        try:
            active = await self._records.active()
        except MedForgeError as error:
            # Isolation does not wait for the database.
            self._journal.failed(None, error=str(error), part="isolation")
            return
        for session in active:
            if session.status is SessionStatus.RUNNING:
                self._journal.exposed(session, problem)
        self._reported = problem


class GpuLoop:
    """Refreshes GPU health and readings, and ends quarantines. `database_answers` is called whenever that could be
    recorded."""

    def __init__(
        self,
        watch: GpuWatch,
        driver: GpuDriver,
        clock: Clock,
        journal: Journal,
        database_answers: Callable[[], None],
        *,
        interval_seconds: float,
    ) -> None:
        self._watch = watch
        self._driver = driver
        self._clock = clock
        self._journal = journal
        self._database_answers = database_answers
        self._interval = interval_seconds
        self._failing: str | None = None

    async def run(self) -> None:
        while True:
            if await self._driver.changed(self._interval):
                await self._clock.sleep(min(_BURST_SECONDS, self._interval))
            try:
                await self._watch.release_free()
            except MedForgeError as error:
                # Not the driver's: the database's. Recovery waits for longer and longer after a failure of it.
                self._fails(str(error))
            except Exception as error:  # noqa: BLE001 - a defect met once must not leave the GPUs unattended
                self._journal.failed(None, error=repr(error), exc_info=error, part="gpus")
            else:
                self._failing = None
                self._database_answers()

    def _fails(self, problem: str) -> None:
        if problem != self._failing:
            self._journal.failed(None, error=problem, part="gpus")
        self._failing = problem
