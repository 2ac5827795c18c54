"""Owns the loops that run as long as the daemon: recovery with back-off, isolation, GPUs."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import structlog

from medforged.domain.errors import MedForgeError
from medforged.ports.clock import Clock
from medforged.services.gpus import GpuWatch
from medforged.services.isolation import IsolationGuard
from medforged.services.journal import Journal, RecoveryMode
from medforged.services.reconcile import Reconciliation

__all__ = ["GpuLoop", "IsolationLoop", "RecoveryLoop"]


class RecoveryLoop:
    """Runs a pass at start and then every interval; after failures the interval doubles up to its maximum."""

    def __init__(
        self,
        reconciliation: Reconciliation,
        clock: Clock,
        journal: Journal,
        interval_seconds: float,
        backoff_max_seconds: float,
    ) -> None:
        self._reconciliation = reconciliation
        self._clock = clock
        self._journal = journal
        self._interval = interval_seconds
        self._backoff_max = backoff_max_seconds
        self._task: asyncio.Task[object] | None = None
        self.problem: str | None = "recovery has not run yet"

    @property
    def alive(self) -> bool:
        """Whether the loop itself still runs; `problem` tells whether its last pass succeeded."""
        return self._task is not None and not self._task.done()

    async def run(self) -> None:
        self._task = asyncio.current_task()
        mode = RecoveryMode.STARTUP
        delay = self._interval
        while True:
            with structlog.contextvars.bound_contextvars(correlation_id=str(uuid4())):
                if await self._pass(mode):
                    mode, delay = RecoveryMode.POLL, self._interval
                else:
                    delay = min(delay * 2, max(self._backoff_max, self._interval))
            await self._clock.sleep(delay)

    async def _pass(self, mode: RecoveryMode) -> bool:
        try:
            await self._reconciliation.run(mode)
        except MedForgeError as error:
            self.problem = str(error)
            self._journal.failed(None, error=str(error), recovery_mode=mode.value)
            return False
        except Exception as error:  # noqa: BLE001 - a defect met in one pass must not end recovery for good
            self.problem = f"internal error ({type(error).__name__}); the journal has the details"
            self._journal.failed(None, error=repr(error), recovery_mode=mode.value, exc_info=error)
            return False
        self.problem = None
        return True


class IsolationLoop:
    """Re-asserts isolation every few seconds, and proves it with traffic every now and then."""

    def __init__(
        self, guard: IsolationGuard, clock: Clock, interval_seconds: float, probe_interval_seconds: float
    ) -> None:
        self._guard = guard
        self._clock = clock
        self._interval = interval_seconds
        self._probe_interval = probe_interval_seconds

    async def run(self) -> None:
        proven = self._clock.monotonic()
        while True:
            await self._clock.sleep(self._interval)
            await self._guard.assert_again()
            if self._clock.monotonic() - proven >= self._probe_interval:
                await self._guard.prove()
                proven = self._clock.monotonic()


class GpuLoop:
    """Refreshes GPU health and readings."""

    def __init__(self, watch: GpuWatch, clock: Clock, interval_seconds: float) -> None:
        self._watch = watch
        self._clock = clock
        self._interval = interval_seconds

    async def run(self) -> None:
        while True:
            await self._clock.sleep(self._interval)
            await self._watch.refresh()
