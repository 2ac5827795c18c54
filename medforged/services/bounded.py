"""Owns the last limit of a call to the host: adapters have their own, and nothing may wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from medforged.domain.errors import HostError

__all__ = ["bounded"]

T = TypeVar("T")


async def bounded(call: Awaitable[T], seconds: float, error: type[HostError], what: str) -> T:
    """The call's result. Raises `error`, with `what` ("cannot X") at its beginning, when it takes longer."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError as expired:
        if not limit.expired():
            raise
        raise error(f"{what}: no answer within {seconds:g} s") from expired
