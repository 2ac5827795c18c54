"""Owns being woken by the GPUs' events: one event set for all of them, waited on by a thread of its own.

An event only says that a look is worthwhile. What happened is fetched by that look from the event set of its own that
each GPU has (`NvmlDevice`). The reference (nvmlDeviceRegisterEvents) has a set record what happens once a GPU is
registered on it, and names no limit of sets to a GPU; that each of them gets each event, tests/gpu tests on real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable
from typing import Any

import pynvml

from medforged.adapters.nvml.errors import NOT_OFFERED
from medforged.adapters.nvml.lanes import Lane, Stuck

__all__ = ["WATCHED", "EventWatch"]

WATCHED: int = pynvml.nvmlEventTypeXidCriticalError | pynvml.nvmlEventTypeDoubleBitEccError
_SLICE_SECONDS = 0.5  # a wait cannot be interrupted: whoever wants the thread out of the library waits this long
_EVENTS_PER_SLICE = 1000  # one look does for all that are queued


class EventWatch:
    """Waits for events of the GPUs that answered the last look, for as long as one initialisation of NVML lasts.

    Its thread is inside the library for half a second at a time, and there is never another. A set fails as a whole,
    when a GPU falls off the bus for example; it is then made anew with those that still work, but not more often than
    every `retry_seconds`. So it is when a GPU has joined, or could not be registered. Whoever waits is woken when a
    set has failed and when one was made, since nobody watched in between.
    """

    def __init__(self, *, retry_seconds: float) -> None:
        self._lane = Lane("nvml-events")
        self._retry = retry_seconds
        self._news = threading.Event()
        self._set: _EventSet | None = None
        self._made = float("-inf")
        self._indexes: frozenset[int] = frozenset()

    async def changed(self, timeout_seconds: float) -> bool:
        """Whether there was news within this time. Safe to cancel: what a cancelled call would have told is kept."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while not self._news.is_set():
            seconds = min(_SLICE_SECONDS, deadline - loop.time())
            if seconds <= 0:
                return False
            await self._wait(seconds)
        self._news.clear()
        return True

    def begin(self, indexes: Iterable[int]) -> None:
        """These GPUs have answered a look; from now on their events count."""
        self._indexes = frozenset(indexes)
        if self._set is None:
            self._set = _EventSet(self._news, self._retry, self._made)

    async def end(self, *, timeout_seconds: float) -> None:
        """Leave the library, as NVML is to be shut down. Raises Stuck when the thread does not come out of it.

        That thread touches nothing of the library any more when it comes back, and until then there are no events.
        """
        events, self._set = self._set, None
        if events is not None:
            events.over.set()
            self._made = events.made
            await self._lane.run(events.free, timeout_seconds=timeout_seconds)
        elif self._lane.busy:  # an earlier end() was cancelled, or has not got through
            await self._lane.run(_nothing, timeout_seconds=timeout_seconds)

    async def _wait(self, seconds: float) -> None:
        """At most about so long, and not much less unless there is news, whatever the library does."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        events, indexes = self._set, self._indexes
        if events is not None:
            with contextlib.suppress(Stuck):
                await self._lane.run(lambda: events.wait(indexes, seconds), timeout_seconds=2 * _SLICE_SECONDS)
        if not self._news.is_set():
            await asyncio.sleep(end - loop.time())


class _EventSet:
    """The set within one initialisation of NVML. Its methods block; call them from one thread at a time.

    `over` is set by another thread: from then on only `free` calls the library, and only when the thread that was in
    it has come out. `made` is when the set was last made, or tried to be (monotonic seconds).
    """

    def __init__(self, news: threading.Event, retry_seconds: float, made: float) -> None:
        self.over = threading.Event()
        self.made = made
        self._news = news
        self._retry = retry_seconds
        self._handle: Any = None
        self._settled: set[int] = set()

    def wait(self, indexes: frozenset[int], seconds: float) -> None:
        """Wait for events of these GPUs, and set `news` when there is one. Raises nothing."""
        if self.over.is_set():
            return
        if (self._handle is None or indexes - self._settled) and time.monotonic() - self.made >= self._retry:
            self.made = time.monotonic()
            self._make(indexes)
        if self._handle is None:
            return
        milliseconds = 0 if self._news.is_set() else int(seconds * 1000)
        try:
            for _ in range(_EVENTS_PER_SLICE):
                if self.over.is_set():
                    return
                pynvml.nvmlEventSetWait_v2(self._handle, milliseconds)
                self._news.set()
                milliseconds = 0
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_TIMEOUT:
                self._news.set()
                self._drop()

    def free(self) -> None:
        """Give the set back; safe to call twice."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(pynvml.NVMLError):  # the driver may be gone, and the set with it
                pynvml.nvmlEventSetFree(handle)

    def _drop(self) -> None:
        if not self.over.is_set():  # otherwise it may have ended with its initialisation
            self.free()

    def _make(self, indexes: frozenset[int]) -> None:
        self._drop()
        left_out: set[int] = set()
        with contextlib.suppress(pynvml.NVMLError):  # no set at all: tried again later
            while (spoilt_by := self._register(indexes - left_out)) is not None:
                left_out.add(spoilt_by)

    def _register(self, indexes: frozenset[int] | set[int]) -> int | None:
        """Make a set of these GPUs; the index of the one with which it was spoilt, if it was. Raises NVMLError."""
        if self.over.is_set():
            return None
        self._settled = set()
        self._handle = pynvml.nvmlEventSetCreate()
        registered = 0
        for index in sorted(indexes):
            if self.over.is_set():
                return None
            try:
                device = pynvml.nvmlDeviceGetHandleByIndex(index)
                wanted = pynvml.nvmlDeviceGetSupportedEventTypes(device) & WATCHED
            except pynvml.NVMLError as error:
                if error.value in NOT_OFFERED:
                    self._settled.add(index)
                continue
            try:
                if wanted:
                    pynvml.nvmlDeviceRegisterEvents(device, wanted, self._handle)
                    registered += 1
            except pynvml.NVMLError as error:
                if error.value not in NOT_OFFERED:  # after other errors the set is undefined, says the reference
                    self._drop()
                    return index
            self._settled.add(index)
        if registered:
            self._news.set()
        else:
            self._drop()
        return None


def _nothing() -> None:
    pass
