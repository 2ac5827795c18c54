"""Owns what is counted of sessions: how many there are in each status, how long they take to start and stop, why they
end.

It hears every change of a record that the services publish, and asks nobody anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from medforged.domain.sessions import ACTIVE, Session, SessionStatus, StopReason
from medforged.exposition import Durations
from medforged.ports.clock import Clock

__all__ = ["SessionTally", "Started"]

# A create takes a fraction of a second where images are warm, and by default no longer than its deadline of 180 s.
_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0)


class Started(StrEnum):
    """What became of a create."""

    RUNNING = "running"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(slots=True)
class _Seen:
    """An active session as it was last heard of, and when, by the monotonic clock, it got there.

    None for what began in an earlier life of the daemon: how long that took, nobody knows.
    """

    session: Session
    allocated: float | None
    stopping: float | None


class SessionTally:
    """`note` is to be called with every published record."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._active: dict[UUID, _Seen] = {}
        self.revision = 0
        """The greatest that was heard of."""
        self.creates = {outcome: Durations(_BOUNDS) for outcome in Started}
        self.stops = {reason: Durations(_BOUNDS) for reason in StopReason}
        self.ends = Counter(dict.fromkeys(StopReason, 0))

    def begin(self, sessions: Iterable[Session], revision: int) -> None:
        """Take in what was there before: the active sessions, and the database's revision."""
        self.revision = revision
        for session in sessions:
            self._active[session.id] = _Seen(session, None, None)

    def note(self, session: Session) -> None:
        """A record has changed."""
        self.revision = max(self.revision, session.revision)
        seen = self._active.get(session.id)
        if seen is None:
            # Every session begins as `starting`; anything else of an unknown one is older than its end.
            if session.status is SessionStatus.STARTING:
                self._active[session.id] = _Seen(session, self._clock.monotonic(), None)
            return
        if session.revision < seen.session.revision:
            return
        before, seen.session = seen.session.status, session
        if before is SessionStatus.STARTING and session.status is not SessionStatus.STARTING:
            self._note_start(seen)
        if session.status is SessionStatus.STOPPING and before is not SessionStatus.STOPPING:
            seen.stopping = self._clock.monotonic()
        if not session.active:
            del self._active[session.id]
            self._note_end(seen)

    def by_status(self) -> dict[SessionStatus, int]:
        """How many active sessions there are, by status."""
        found = Counter(seen.session.status for seen in self._active.values())
        return {status: found[status] for status in SessionStatus if status in ACTIVE}

    def held_gpus(self) -> frozenset[int]:
        """The ids of the GPUs that active sessions hold."""
        return frozenset(seen.session.gpu_id for seen in self._active.values())

    def _note_start(self, seen: _Seen) -> None:
        if seen.allocated is None:
            return
        if seen.session.status is SessionStatus.RUNNING:
            outcome = Started.RUNNING
        else:
            requested = seen.session.ending is StopReason.REQUESTED
            outcome = Started.STOPPED if requested else Started.FAILED
        self.creates[outcome].observe(self._clock.monotonic() - seen.allocated)

    def _note_end(self, seen: _Seen) -> None:
        reason = seen.session.ending or StopReason.REQUESTED
        self.ends[reason] += 1
        if seen.stopping is not None:
            self.stops[reason].observe(self._clock.monotonic() - seen.stopping)
