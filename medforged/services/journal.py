"""Owns the events that tell a session's story, with the fields of contract.md section 3."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import structlog

from medforged.domain.sessions import Session

__all__ = ["Journal", "RecoveryMode"]


class RecoveryMode(StrEnum):
    """What made recovery look at a session."""

    STARTUP = "startup"
    POLL = "poll"
    EVENT = "event"


class Journal:
    """Writes events to structlog. Everything host-related that the daemon does goes through here."""

    def __init__(self) -> None:
        self._log: Any = structlog.get_logger("medforged")

    def started(self, session: Session, **fields: Any) -> None:
        self._log.info("session.start", **_of(session), **fields)

    def stopped(self, session: Session, *, reason: str, **fields: Any) -> None:
        self._log.info("session.stop", reason=reason, **_of(session), **fields)

    def decided(self, session: Session, *, state: str, recovery_mode: RecoveryMode, **fields: Any) -> None:
        self._log.info(
            "session.recovery.decision", state=state, recovery_mode=recovery_mode.value, **_of(session), **fields
        )

    def failed(self, session: Session | None, *, error: str, **fields: Any) -> None:
        self._log.error("session.recovery.failure", error=error, **(_of(session) if session else {}), **fields)

    def create_failed(self, session: Session, *, error: str, undo_failures: tuple[str, ...]) -> None:
        self._log.error("session.create.failure", error=error, undo_failures=list(undo_failures), **_of(session))

    def polled(self, *, updated: int, recovery_mode: RecoveryMode) -> None:
        self._log.info("session.poll.updated", updated=updated, recovery_mode=recovery_mode.value)

    def isolation(self, *, holds: bool, changed: tuple[str, ...], problems: tuple[str, ...]) -> None:
        level = self._log.info if holds else self._log.error
        level("isolation.applied" if holds else "isolation.broken", changed=list(changed), problems=list(problems))

    def gpu_changed(self, *, gpu_id: int, gpu_uuid: str, health: str, reason: str | None) -> None:
        self._log.warning("gpu.health", gpu_id=gpu_id, gpu_uuid=gpu_uuid, health=health, reason=reason)

    def gpu_quarantined(self, session: Session, reason: str) -> None:
        self._log.error("gpu.quarantined", gpu_uuid=session.gpu_uuid, reason=reason, **_of(session))

    def told(self, session: Session, problem: str) -> None:
        """A session's GPU has become unhealthy under it."""
        self._log.error("session.gpu_unhealthy", error=problem, gpu_uuid=session.gpu_uuid, **_of(session))

    def exposed(self, session: Session, problem: str) -> None:
        """A running session is not known to be isolated."""
        self._log.error("isolation.exposed", error=problem, **_of(session))

    def note(self, event: str, **fields: Any) -> None:
        """Any other event of the daemon itself."""
        self._log.info(event, **fields)

    def warn(self, event: str, **fields: Any) -> None:
        self._log.warning(event, **fields)


def _of(session: Session) -> dict[str, Any]:
    return {
        "session_id": str(session.id),
        "user_id": str(session.user_id),
        "slug": session.slug,
        "gpu_id": session.gpu_id,
        "pack_id": str(session.pack_id),
        "tier": session.tier.value.upper(),
    }
