"""Owns background work: kept alive while it runs, its failures logged, ended in order at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from medforged.services.journal import Journal

__all__ = ["BackgroundTasks"]


class BackgroundTasks:
    """A set of tasks that somebody started and nobody awaits."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, object], name: str) -> asyncio.Task[object]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self, timeout_seconds: float) -> None:
        """Let running tasks end by themselves for this long, then cancel them."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_seconds)
        for task in set(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._journal.warn("background.failure", task=task.get_name(), error=repr(error), exc_info=error)
