"""Owns telling watchers that a session has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medforged.domain.sessions import Session

__all__ = ["ChangeFeed", "Subscription"]

# A watcher that is this far behind is cut off; it resumes from its last revision and reads from the database.
_MAX_PENDING = 1024


class Subscription:
    """The changes that one watcher has not read yet; the newest record of each session, in order of revision."""

    def __init__(self) -> None:
        self._pending: dict[object, Session] = {}
        self._wake = asyncio.Event()
        self.overrun = False

    def put(self, session: Session) -> None:
        # Taking the older record out first keeps the order of revisions.
        self._pending.pop(session.id, None)
        self._pending[session.id] = session
        if len(self._pending) > _MAX_PENDING:
            self.overrun = True
        self._wake.set()

    def wake(self) -> None:
        """Let `take` return even though nothing has changed."""
        self._wake.set()

    async def take(self, timeout_seconds: float) -> tuple[Session, ...]:
        """What has changed since the last call; waits for a change, at most this long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        taken = tuple(sorted(self._pending.values(), key=lambda session: session.revision))
        self._pending.clear()
        return taken


class ChangeFeed:
    """Fans each published record out to every subscription."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[Callable[[Session], None]] = []

    @property
    def watchers(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    def listen(self, listener: Callable[[Session], None]) -> None:
        """Call `listener` with every record from now on, at once; it must be quick."""
        self._listeners.append(listener)

    def publish(self, session: Session) -> None:
        for listener in self._listeners:
            listener(session)
        for subscription in self._subscriptions:
            subscription.put(session)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Subscribe first, then read the database: nothing falls between."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def wake_all(self) -> None:
        for subscription in self._subscriptions:
            subscription.wake()
