"""Owns recovery's loop: a pass at start, in every poll, whenever something gives reason to, and on demand."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import uuid4

import structlog

from medforged.domain.errors import MedForgeError
from medforged.ports.clock import Clock
from medforged.services.journal import Journal, RecoveryMode
from medforged.services.reconcile import Reconciliation
from medforged.services.report import Report
from medforged.services.waiting import first_of

__all__ = ["RecoveryLoop"]

# The loop does not wait for slow sessions, which go on by themselves: others may need it.
_PATIENCE_SECONDS = 2.0


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
        self._woken: RecoveryMode | None = None
        self._wake = asyncio.Event()
        self._error: MedForgeError | None = None
        self.problem: str | None = "recovery has not run yet"
        self.passes = 0
        """How many passes have succeeded."""
        self.failures = 0
        """How many passes have failed."""
        self.succeeded_at: datetime | None = None
        """When a pass last did."""

    @property
    def alive(self) -> bool:
        """Whether the loop itself still runs; `problem` tells whether its last pass succeeded."""
        return self._task is not None and not self._task.done()

    def wake(self, mode: RecoveryMode = RecoveryMode.EVENT) -> None:
        """Let the next pass begin now: something may have happened that nobody has seen."""
        self._woken = mode
        self._wake.set()

    def answers(self, *errors: type[MedForgeError]) -> None:
        """Somebody has seen the part well whose failures these are: a pass that failed by it need not wait longer."""
        if isinstance(self._error, errors):
            self.wake()

    async def run(self) -> None:
        self._task = asyncio.current_task()
        mode = RecoveryMode.STARTUP
        delay = self._interval
        while True:
            self._wake.clear()
            with structlog.contextvars.bound_contextvars(correlation_id=str(uuid4())):
                if await self._pass(mode):
                    mode, delay = RecoveryMode.POLL, self._interval
                else:
                    delay = min(delay * 2, max(self._backoff_max, self._interval))
            await first_of(self._clock.sleep(delay), self._wake.wait())
            if self._wake.is_set() and mode is RecoveryMode.POLL:
                mode = self._woken or mode

    async def on_demand(self) -> Report:
        """A pass for somebody who waits for its report. Raises MedForgeError."""
        try:
            report = await self._reconciliation.run(RecoveryMode.POLL)
        except MedForgeError:
            self.failures += 1
            raise
        self._succeeded()
        return report

    def _succeeded(self) -> None:
        self.passes += 1
        self.succeeded_at = self._clock.now()
        self.problem = self._error = None

    async def _pass(self, mode: RecoveryMode) -> bool:
        try:
            await self._reconciliation.run(mode, patience_seconds=_PATIENCE_SECONDS)
        except MedForgeError as error:
            self.failures += 1
            self.problem, self._error = str(error), error
            self._journal.failed(None, error=str(error), recovery_mode=mode.value)
            return False
        except Exception as error:  # noqa: BLE001 - a defect met in one pass must not end recovery for good
            self.failures += 1
            self.problem = f"internal error ({type(error).__name__}); the journal has the details"
            self._journal.failed(None, error=repr(error), recovery_mode=mode.value, exc_info=error)
            return False
        self._succeeded()
        return True
