"""Owns undoing a half-done sequence of steps, last step first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from medforged.domain.errors import HostError, MedForgeError
from medforged.services.bounded import bounded

__all__ = ["UndoStack"]


class UndoStack:
    """Push each step's undo before the step is tried; `commit` when all are done, else `unwind`. An undo that takes
    longer than `step_seconds` has failed.

    >>> async def create():
    ...     undo = UndoStack()
    ...     undo.push("remove container", remove_container)
    ...     await create_container()
    ...     undo.commit()
    """

    def __init__(self, step_seconds: float = 90.0) -> None:
        self._step_seconds = step_seconds
        self._steps: list[tuple[str, Callable[[], Awaitable[None]]]] = []

    def push(self, what: str, undo: Callable[[], Awaitable[None]]) -> None:
        """`undo` must be idempotent and do nothing where its step has not happened."""
        self._steps.append((what, undo))

    def commit(self) -> None:
        """Forget every step: there is nothing to undo any more."""
        self._steps.clear()

    async def unwind(self) -> tuple[str, ...]:
        """Undo all steps, last first, whatever fails between; return one sentence for each that failed.

        Shielded from cancellation, so that a caller who goes away does not leave half of it.
        """
        return await asyncio.shield(self._unwind())

    async def _unwind(self) -> tuple[str, ...]:
        failures = []
        while self._steps:
            what, undo = self._steps.pop()
            try:
                await bounded(undo(), self._step_seconds, HostError, f"cannot {what}")
            except MedForgeError as error:
                failures.append(f"cannot {what}: {error}")
        return tuple(failures)
