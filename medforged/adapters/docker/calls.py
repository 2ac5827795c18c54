"""Owns the threads on which calls to the engine block, and what happens to a call that nobody waits for any more."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

__all__ = ["BlockingCalls", "CallsClosed"]

T = TypeVar("T")


class CallsClosed(Exception):
    """The pool was closed before the call could run; it had no effect."""


class BlockingCalls:
    """A bounded number of threads with lanes, and a second number for calls that mostly wait.

    Calls in the same lane run one after the other, in the order in which they were made, so a container that hangs
    inside the engine holds one thread and not all of them. A lane stays occupied until the thread itself has
    returned, even when the caller was cancelled meanwhile: whoever removes a container after having cancelled its
    creation finds it created, and not about to be. A call that was given up before its turn never runs.

    The threads are daemon threads, one for each call: those of `concurrent.futures` are joined when the interpreter
    ends, and one call that hangs would keep the process from ending.
    """

    def __init__(self, name: str, *, threads: int, waiting_threads: int) -> None:
        self._name = name
        self._places = asyncio.Semaphore(threads)
        self._waiting_places = asyncio.Semaphore(waiting_threads)
        self._lanes: dict[str, _Lane] = {}
        self._calls: dict[asyncio.Task[Any], _Call[Any]] = {}
        self._closed = False

    async def run(self, lane: str, work: Callable[[], T], *, timeout_seconds: float, waits: bool = False) -> T:
        """Return or raise what `work` does; `waits` takes one of the second number of threads. Raises CallsClosed,
        and TimeoutError after a time that includes the wait for lane and thread."""
        call = _Call(work, self._waiting_places if waits else self._places)
        task = asyncio.create_task(self._in_lane(lane, call))
        self._calls[task] = call
        task.add_done_callback(self._finished)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.shield(task)
        finally:
            call.given_up = True  # means nothing to a call that has begun

    async def close(self, timeout_seconds: float) -> None:
        """Refuse new calls, drop those that have not begun, and give the others a moment to end."""
        self._closed = True
        for task, call in self._calls.items():
            if not call.begun:
                task.cancel()
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=timeout_seconds)

    async def _in_lane(self, key: str, call: _Call[T]) -> T:
        try:
            async with self._turn(key), call.places:
                if self._closed or call.given_up:
                    raise CallsClosed
                return await call.run(self._name)
        except asyncio.CancelledError:
            if self._closed and not call.begun:
                raise CallsClosed from None
            raise

    @contextlib.asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        lane = self._lanes.setdefault(key, _Lane())
        lane.users += 1
        try:
            async with lane.lock:
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[key]

    def _finished(self, task: asyncio.Task[Any]) -> None:
        del self._calls[task]
        if not task.cancelled():
            task.exception()  # nobody may be left who asks; that is no defect


class _Lane:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class _Call(Generic[T]):
    def __init__(self, work: Callable[[], T], places: asyncio.Semaphore) -> None:
        self.places = places
        self.begun = False
        self.given_up = False
        self._work = work

    async def run(self, thread_name: str) -> T:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = self._work()
            except BaseException as error:  # noqa: BLE001 - handed over, not swallowed: the caller raises it
                tell(outcome.set_exception, error)
            else:
                tell(outcome.set_result, result)

        def tell(how: Callable[[Any], None], what: object) -> None:
            # The loop may be gone when a call that hung returns at last: then nobody wants to know.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, how, what)

        def settle(how: Callable[[Any], None], what: object) -> None:
            if not outcome.done():
                how(what)

        self.begun = True
        threading.Thread(target=work, name=thread_name, daemon=True).start()
        return await outcome
