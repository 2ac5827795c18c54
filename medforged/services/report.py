"""Owns what a pass of recovery tells: which sessions it looked at, what did not match, and what it did about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from medforged.domain.sessions import Session

__all__ = ["Action", "Outcome", "Report"]


class Outcome(StrEnum):
    """What was done about something that did not match; medforged/contract/sessions.py explains each."""

    RUNNING = "running"
    ENDED = "ended"
    REMOVED = "removed"
    RELEASED = "released"
    PENDING = "pending"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Action:
    """`found` is the container's state or what else was seen; `session` is None for what belongs to none."""

    subject: str
    session: Session | None
    found: str
    outcome: Outcome
    message: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """One pass; seconds, and how many active sessions there were."""

    seconds: float
    sessions: int
    actions: tuple[Action, ...]

    @property
    def updated(self) -> int:
        """How many things are different now."""
        return sum(action.outcome not in (Outcome.PENDING, Outcome.FAILED) for action in self.actions)
