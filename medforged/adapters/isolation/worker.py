"""Owns the threads on which blocking libraries are called: one for each, with a limit on every call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from medforged.domain.errors import IsolationError

__all__ = ["Worker"]

T = TypeVar("T")
_CANCEL_SECONDS = 3.0


class Worker:
    """One thread, one call at a time; callers queue for it within their own limit, so nothing piles up."""

    def __init__(self, what: str, timeout_seconds: float) -> None:
        self._what = what
        self._timeout = timeout_seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"medforge-{what}")

    async def run(self, call: Callable[[], T], *, on_cancel: Callable[[], None] | None = None) -> T:
        """Return or raise what the call does. Raises IsolationError when it does not come back in time.

        A call that has begun cannot be taken back. With `on_cancel` a cancelled caller asks it to end, and waits
        for that, so that it finds everything undone.
        """
        future = asyncio.wrap_future(self._thread.submit(call))
        done, _ = await self._wait(future, on_cancel)
        if not done:
            if on_cancel is not None:
                on_cancel()
            future.cancel()
            raise IsolationError(f"cannot use {self._what}: no answer within {self._timeout:g} s")
        return future.result()

    async def _wait(
        self, future: asyncio.Future[T], on_cancel: Callable[[], None] | None
    ) -> tuple[set[asyncio.Future[T]], set[asyncio.Future[T]]]:
        try:
            return await asyncio.wait({future}, timeout=self._timeout)
        except asyncio.CancelledError:
            if on_cancel is None:
                future.cancel()
            else:
                on_cancel()
                await asyncio.wait({future}, timeout=_CANCEL_SECONDS)
                if future.done() and not future.cancelled():
                    future.exception()  # looked at, so that nobody reports it as forgotten
            raise

    def close(self) -> None:
        """Let the call that is running end; those that wait do not begin."""
        self._thread.shutdown(wait=False, cancel_futures=True)
