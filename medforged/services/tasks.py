"""Owns background work: kept alive while it runs, its failures logged, ended in order at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from medforged.ports.clock import Clock
from medforged.services.journal import Journal

__all__ = ["BackgroundTasks"]


class BackgroundTasks:
    """A set of tasks that somebody started and nobody has to await."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = asyncio.Event()

    def start(self, work: Coroutine[Any, Any, object], name: str) -> asyncio.Task[object]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def pause(self, seconds: float) -> bool:
        """Wait before trying again. False when the daemon is ending meanwhile: then the task has to end as well."""
        waits = {
            asyncio.ensure_future(self._clock.sleep(seconds)),
            asyncio.ensure_future(self._closing.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self._closing.is_set()

    async def settle(self) -> None:
        """Wait until every task has ended by itself, those that they start included."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def drain(self, timeout_seconds: float) -> None:
        """Let running tasks end by themselves for this long, then cancel them."""
        self._closing.set()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_seconds)
        for task in set(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._journal.warn("background.failure", task=task.get_name(), error=repr(error), exc_info=error)
