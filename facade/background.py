"""Owns the facade's recurring work: run at an interval until cancelled, never ended by a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

__all__ = ["every"]

_log = structlog.get_logger()


async def every(seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do the work, then wait; a failure is logged once until the work succeeds again. Runs until cancelled."""
    failing = False
    while True:
        try:
            await work()
            failing = False
        except Exception as error:  # noqa: BLE001  # recurring work goes on whatever happened
            if not failing:
                _log.error("background.failed", work=name, reason=f"{type(error).__name__}: {error}")
            failing = True
        await asyncio.sleep(seconds)
