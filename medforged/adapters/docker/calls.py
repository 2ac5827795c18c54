"""Owns the threads on which blocking calls run, and what happens to a call that nobody waits for any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

__all__ = ["BlockingCalls", "CallsClosed"]

T = TypeVar("T")


class CallsClosed(Exception):
    """The pool was closed before the call could run; it had no effect."""


class BlockingCalls:
    """A bounded pool of threads with lanes, and a second pool for calls that mostly wait.

    Calls in the same lane run one after the other, in the order in which they were made, so a container that hangs
    inside the engine holds one thread and not all of them. A lane stays occupied until the thread itself has
    returned, even when the caller was cancelled meanwhile: whoever removes a container after having cancelled its
    creation finds it created, and not about to be. A call that was given up before its turn never runs.
    """

    def __init__(self, name: str, *, threads: int, waiting_threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._waiting_pool = ThreadPoolExecutor(waiting_threads, thread_name_prefix=f"{name}-wait")
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def run(self, lane: str, work: Callable[[], T], *, timeout_seconds: float, waits: bool = False) -> T:
        """Return or raise what `work` does; `waits` picks the second pool. Raises CallsClosed, and TimeoutError
        after a time that includes the wait for lane and thread."""
        call = _Call(work)
        task = asyncio.create_task(self._in_lane(lane, call, self._waiting_pool if waits else self._pool))
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.shield(task)
        finally:
            call.abandoned = True  # means nothing to a call that has begun

    async def close(self, timeout_seconds: float) -> None:
        """Refuse new calls and give those that run a moment to end. One that is stuck keeps its thread."""
        self._closed = True
        for pool in (self._pool, self._waiting_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)

    async def _in_lane(self, key: str, call: _Call[T], pool: ThreadPoolExecutor) -> T:
        async with self._turn(key):
            if self._closed:
                raise CallsClosed
            try:
                return await asyncio.get_running_loop().run_in_executor(pool, call)
            except asyncio.CancelledError:
                if self._closed:  # it was still waiting for a thread when the pool was shut down
                    raise CallsClosed from None
                raise

    @asynccontextmanager
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
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left who asks; that is no defect


class _Lane:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class _Call(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self.abandoned = False

    def __call__(self) -> T:
        if self.abandoned:
            raise CallsClosed
        return self._work()
