"""Owns the sessions as this process knows them: in memory, from the watch stream and from answers to calls.

The hot path reads nothing else. When the stream is lost, what is known stays known, so that running sessions remain
reachable while the daemon restarts; when it comes back with a whole list, what the list lacks is forgotten.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from uuid import UUID

from medforged.client import DaemonError
from medforged.contract.sessions import Session, SessionStatus
from medforged.contract.watch import Heartbeat, SessionChanged, Synced, WatchEvent

__all__ = ["Registry"]

_ENDED = frozenset({SessionStatus.STOPPED, SessionStatus.ERROR})
# Ended sessions are remembered by id, so that an answer that was overtaken by the stream does not revive one.
_ENDED_CAPACITY = 10_000


class Registry:
    """Active sessions by id and by slug, and how fresh that knowledge is."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._heard: float | None = None
        # The newest change that anybody has told of.
        self._newest = 0
        self._by_id: dict[UUID, Session] = {}
        self._by_slug: dict[str, Session] = {}
        self._ended: OrderedDict[UUID, None] = OrderedDict()
        # What the present stream has told so far, until it says that this is the whole list.
        self._told: dict[UUID, Session] = {}
        self._epoch: UUID | None = None
        # How far the stream has told changes.
        self._revision = 0
        self._known = asyncio.Event()
        self.live = False
        """Whether the stream is connected and complete up to now."""
        self.recovery_alive = True
        """What the daemon last said of its recovery loop."""
        self.lost: str = "the daemon has not been heard yet"
        """Why the stream is not live."""

    @property
    def known(self) -> bool:
        """Whether the daemon has ever told all its sessions to this process."""
        return self._known.is_set()

    @property
    def silence_seconds(self) -> float | None:
        """How long ago the stream last told anything; None before it ever did."""
        return None if self._heard is None else self._monotonic() - self._heard

    @property
    def behind(self) -> int:
        """By how many revisions the stream is behind what heartbeats and answers to calls have told of."""
        return max(0, self._newest - self._revision)

    def by_status(self) -> dict[SessionStatus, int]:
        """How many active sessions there are, by status."""
        found = Counter(session.status for session in self._by_id.values())
        return {status: found[status] for status in SessionStatus if status not in _ENDED}

    async def wait_known(self) -> None:
        await self._known.wait()

    def by_slug(self, slug: str) -> Session | None:
        return self._by_slug.get(slug)

    def by_id(self, session_id: UUID) -> Session | None:
        return self._by_id.get(session_id)

    def newest_of(self, user_id: UUID) -> Session | None:
        """The user's newest active session."""
        own = (session for session in self._by_id.values() if session.user_id == user_id)
        return max(own, key=lambda session: (session.created_at, session.id), default=None)

    def hear(self, event: WatchEvent | DaemonError) -> None:
        """Take in what the stream says, its loss included."""
        if not isinstance(event, DaemonError):
            self._heard = self._monotonic()
        match event:
            case SessionChanged():
                if self.live:
                    self._revision = max(self._revision, event.session.revision)
                else:
                    self._told[event.session.id] = event.session
                self.apply(event.session)
            case Synced():
                self._synced(event)
            case Heartbeat():
                self.recovery_alive = event.recovery_alive
                self._newest = max(self._newest, event.revision)
            case DaemonError():
                self._told.clear()
                self.live = False
                self.lost = event.message

    def apply(self, session: Session) -> None:
        """Take in a record, unless a newer one of the same session is known."""
        self._newest = max(self._newest, session.revision)
        known = self._by_id.get(session.id)
        if session.id in self._ended or (known is not None and known.revision > session.revision):
            return
        if session.status in _ENDED:
            self._remove(session.id)
            self._ended[session.id] = None
            if len(self._ended) > _ENDED_CAPACITY:
                self._ended.popitem(last=False)
        else:
            self._by_id[session.id] = session
            self._by_slug[session.slug] = session

    def _synced(self, event: Synced) -> None:
        if event.relist and (event.epoch != self._epoch or event.revision < self._revision):
            # Another database, or an older copy of it: revisions say nothing about what was known before.
            self._by_id.clear()
            self._by_slug.clear()
            self._ended.clear()
            self._newest = 0
            for session in self._told.values():
                self.apply(session)
        elif event.relist:
            for session in list(self._by_id.values()):
                # An answer to a call may be newer than the list.
                if session.id not in self._told and session.revision <= event.revision:
                    self._remove(session.id)
        self._epoch, self._revision = event.epoch, event.revision
        self._told.clear()
        self.live = True
        self._known.set()

    def _remove(self, session_id: UUID) -> None:
        if (session := self._by_id.pop(session_id, None)) is not None:
            self._by_slug.pop(session.slug, None)
