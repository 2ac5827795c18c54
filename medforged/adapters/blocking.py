"""Owns threads for calls that block, so many per technology: a stuck call stalls neither the loop nor the others."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["BlockingCalls", "CallTimedOut"]

T = TypeVar("T")


class CallTimedOut(Exception):
    """A call did not return in time, or found every thread taken. Its thread cannot be stopped and is left behind."""


class BlockingCalls:
    """Runs each call on a daemon thread of its own, at most `limit` at once.

    A thread that is stuck in the kernel keeps its place until it comes back; once all places are taken by
    such threads, further calls fail at the timeout instead of making more of them. Daemon threads do not keep
    the process from ending, which those of `concurrent.futures` do.
    """

    def __init__(self, name: str, *, limit: int, timeout_seconds: float) -> None:
        self._name = name
        self._places = asyncio.Semaphore(limit)
        self._timeout_seconds = timeout_seconds

    async def run(self, call: Callable[[], T]) -> T:
        """Return or raise what `call` does. Raises CallTimedOut."""
        limit = asyncio.timeout(self._timeout_seconds)
        try:
            async with limit:
                await self._places.acquire()
                # Shielded: the thread goes on whatever becomes of the caller, and gives its place back itself.
                return await asyncio.shield(self._start(call))
        except TimeoutError as error:
            if not limit.expired():  # the call's own, such as ETIMEDOUT
                raise
            raise CallTimedOut(f"{self._name} did not answer within {self._timeout_seconds:g} s") from error

    def _start(self, call: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        future.add_done_callback(_fetch)

        def work() -> None:
            value: Any = None
            problem: BaseException | None = None
            try:
                value = call()
            except BaseException as error:  # noqa: BLE001 - handed over, not swallowed: the caller's task raises it
                problem = error
            # The loop may be closed by the time a stuck call comes back: then nobody wants to know.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, value, problem)

        def finish(value: T, problem: BaseException | None) -> None:
            self._places.release()
            if problem is not None:
                future.set_exception(problem)
            else:
                future.set_result(value)

        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError:  # the host's limit of threads
            self._places.release()
            raise
        return future


def _fetch(future: asyncio.Future[Any]) -> None:
    """Look at the outcome once, so that asyncio does not complain of an exception that came after the timeout."""
    if not future.cancelled():
        future.exception()
