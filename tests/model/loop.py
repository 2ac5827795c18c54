"""Owns an event loop whose time stands still until it is moved: hours pass in no time, and always in the same order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

__all__ = ["SteppedClock", "SteppedLoop", "Stuck"]

T = TypeVar("T")

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
# Rounds at one moment of time: whoever needs more than this turns in circles.
_MOST_ROUNDS = 20_000


class Stuck(Exception):
    """What was waited for did not happen within the time that it was given."""


class _Selector(selectors.SelectSelector):
    """Asks the loop what to do instead of sleeping."""

    loop: SteppedLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.loop.turn(timeout)
        return []


class SteppedLoop(asyncio.SelectorEventLoop):
    """Nothing here ever waits for the machine: no sockets, no threads, no signals.

    A *round* is one turn of the loop: everything that was ready when it began has been let run once.
    """

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self._moment = 1000.0
        self._horizon = 0.0
        self._rounds_left: int | None = 0
        super().__init__(selector)

    def time(self) -> float:
        return self._moment

    def turn(self, timeout: float | None) -> None:
        """Called once a round; `timeout` is None or above 0 when nothing is ready."""
        if self._rounds_left is not None:
            self._rounds_left -= 1
            if self._rounds_left <= 0:
                self.stop()
        if timeout is None:
            self.stop()
        elif timeout > 0:
            if self._moment + timeout > self._horizon:
                self.stop()
            else:
                self._moment += timeout
                self._rounds_left = _MOST_ROUNDS

    def rounds(self, count: int) -> None:
        """Let so many rounds pass; time stands still."""
        self._rounds_left, self._horizon = count, self._moment
        if count > 0:
            self.run_forever()

    def pass_time(self, seconds: float) -> None:
        """Let everything happen that is due within so many seconds."""
        self._rounds_left, self._horizon = _MOST_ROUNDS, self._moment + seconds
        self.run_forever()
        if self._rounds_left <= 0:
            raise Stuck(f"the loop turns in circles: {_MOST_ROUNDS} rounds without any time passing")
        self._moment = self._horizon

    def complete(self, work: Coroutine[Any, Any, T], *, within: float = 0.0) -> T:
        """Its result; everything else goes on meanwhile. Raises Stuck when it takes longer than so many seconds."""
        task = self.create_task(work)
        task.add_done_callback(self._stop)
        self._rounds_left, self._horizon = _MOST_ROUNDS, self._moment + within
        self.run_forever()
        task.remove_done_callback(self._stop)
        if not task.done():
            waiting = task.get_stack(limit=1)
            task.cancel()
            self.rounds(100)
            raise Stuck(f"{task.get_coro()} did not end within {within:g} s; it waits at {waiting}")
        return task.result()

    def _stop(self, _: object) -> None:
        self.stop()

    def cancel_all(self, but: set[asyncio.Task[Any]]) -> None:
        """Cancel every task but these, and let them end and tidy up, without any time passing."""
        for attempt in range(100):
            left = asyncio.all_tasks(self) - but
            if not left:
                return
            # What they begin in order to tidy up (a connection that goes back) may need a few rounds.
            if attempt % 10 == 0:
                for task in sorted(left, key=asyncio.Task.get_name):
                    task.cancel()
            self.rounds(5)
        raise Stuck(f"{', '.join(task.get_name() for task in left)} do not end when they are cancelled")


class SteppedClock:
    """The Clock of a daemon that lives on such a loop. `offset` is how wrong the host's calendar is."""

    def __init__(self, loop: SteppedLoop) -> None:
        self._loop = loop
        self.offset = timedelta()

    def now(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._loop.time()) + self.offset

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
