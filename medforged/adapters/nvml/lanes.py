"""Owns the threads on which NVML is called: one call at a time per lane, and nobody waits for a stuck one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Lane", "Stuck"]

T = TypeVar("T")


class Stuck(Exception):
    """A call has not returned in its time, or could not be made. The text goes on after a subject: "has not …"."""


class Lane:
    """Runs blocking calls one after the other, each on a daemon thread of its own.

    A call into NVML that hangs (a GPU that died inside the kernel driver) can neither be cancelled nor
    killed. Its thread is left behind and the lane refuses, at once, every further call until that thread
    comes back; so a lane never holds more than one thread, and a driver with n GPUs never more than n + 2.
    The threads are daemon threads, which `concurrent.futures` does not offer: its executors join theirs
    when the interpreter ends, and one stuck GPU would keep the whole process from ending.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: asyncio.Future[Callable[[], Any]] | None = None
        self._started = 0.0

    @property
    def busy(self) -> bool:
        """Whether a call is inside the library now, stuck or not."""
        return self._running is not None and not self._running.done()

    async def run(self, call: Callable[[], T], *, timeout_seconds: float) -> T:
        """Return or raise what `call` does. Raises Stuck when it, or the call before it, does not come back."""
        loop = asyncio.get_running_loop()
        while self._running is not None and not self._running.done():
            await self._finish(self._running, loop, timeout_seconds)
        outcome: asyncio.Future[Callable[[], Any]] = loop.create_future()

        def work() -> None:
            result = _attempt(call)
            # The loop may be gone when a stuck call returns at last: then nobody wants to know.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(outcome.set_result, result)

        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError as error:  # the host's limit of threads
            raise Stuck(f"cannot be asked: {error}") from error
        self._running, self._started = outcome, loop.time()
        await self._finish(outcome, loop, timeout_seconds)
        value: T = outcome.result()()
        return value

    async def _finish(self, outcome: asyncio.Future[Any], loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        remaining = max(0.0, self._started + seconds - loop.time())
        if not outcome.done():
            await asyncio.wait({outcome}, timeout=remaining)
        if not outcome.done():
            raise Stuck(f"has not answered for {loop.time() - self._started:.0f} s")


def _attempt(call: Callable[[], T]) -> Callable[[], T]:
    """Call, and return a function that returns or raises the same: an exception nobody fetches is no warning then."""
    try:
        value = call()
    except BaseException as error:  # noqa: BLE001 - handed over, not swallowed: the caller's thread raises it
        kept = error

        def fail() -> T:
            raise kept

        return fail
    return lambda: value
