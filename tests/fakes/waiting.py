"""Owns waiting for what happens elsewhere: in a thread, in a program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["until"]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own time limit is the limit."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event loop to tell
        await asyncio.sleep(0.005)
