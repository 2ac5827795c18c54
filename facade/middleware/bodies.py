"""Owns how long a request's body may take to arrive: a client that sends it byte by byte occupies nothing for long.

Caddy passes bodies on as they come and sets no limit, because those of sessions may take as long as they like.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from facade.problems import too_slow

__all__ = ["BYTES_PER_SECOND", "body_deadline", "slow_bodies"]

# The slowest line that a large upload still gets through on.
BYTES_PER_SECOND = 32 * 1024


def slow_bodies(seconds: float, max_bytes: int) -> Middleware:
    """Answers 408 where the body is not complete in time. What a handler does once it has the body may take longer."""

    @web.middleware
    async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.content.is_eof():
            return await handler(request)
        limit = asyncio.timeout(body_deadline(seconds, request.content_length, max_bytes))

        def complete() -> None:
            with contextlib.suppress(RuntimeError):  # it has been answered without its body
                limit.reschedule(None)

        try:
            async with limit:
                request.content.on_eof(complete)
                return await handler(request)
        except TimeoutError:
            if not limit.expired():
                raise
            raise too_slow() from None

    return timed


def body_deadline(seconds: float, length: int | None, max_bytes: int) -> float:
    """How many seconds a body of this length may take; of an unknown length: of the largest that is accepted."""
    return seconds + min(max_bytes if length is None else length, max_bytes) / BYTES_PER_SECOND
