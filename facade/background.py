"""Owns the facade's recurring work: run at an interval until cancelled, never ended by a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

__all__ = ["every"]

_log = structlog.get_logger()


async def every(seconds: float, name: str, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Do the work, then wait; a failure is logged once until the work succeeds again.

    Runs until cancelled, and then to the end of what it is doing: a query that is broken off costs its connection,
    whose thread may report after the event loop has gone. So the work has to have a deadline of its own.
    """
    failing = False
    while True:
        try:
            await _to_its_end(work())
            failing = False
        except Exception as error:  # noqa: BLE001  # recurring work goes on whatever happened
            if not failing:
                _log.error("background.failed", work=name, reason=f"{type(error).__name__}: {error}")
            failing = True
        await asyncio.sleep(seconds)


async def _to_its_end(work: Coroutine[Any, Any, object]) -> None:
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    finally:
        await asyncio.wait([task])
