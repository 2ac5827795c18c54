"""Owns the session: its record, its state machine and its slug."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from medforged.domain.containers import container_name
from medforged.domain.workspaces import WorkspaceKey

__all__ = [
    "ACTIVE",
    "SLUG_ALPHABET",
    "SLUG_LENGTH",
    "TERMINAL",
    "TRANSITIONS",
    "Session",
    "SessionStatus",
    "SessionStep",
    "StopReason",
    "Tier",
    "new_slug",
]

# contract.md section 3: 8 characters of lowercase base32, 40 bits from the system's random source.
SLUG_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
SLUG_LENGTH = 8


class Tier(StrEnum):
    """Who may reach the session's network from outside the host."""

    PUBLIC = "public"
    PRIVATE = "private"


class SessionStatus(StrEnum):
    """The five states of contract.md section 3."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERROR = "error"


class SessionStep(StrEnum):
    """What is being done for a session, in the order of its life; recorded before it is tried.

    `workspace`, `container` and `start` make it; `serve` means that its IDE answers; `stop`, `snapshot`, `remove` and
    `release` (of the GPU, with proof) end it; `done` is the end.
    """

    WORKSPACE = "workspace"
    CONTAINER = "container"
    START = "start"
    SERVE = "serve"
    STOP = "stop"
    SNAPSHOT = "snapshot"
    REMOVE = "remove"
    RELEASE = "release"
    DONE = "done"


class StopReason(StrEnum):
    """Why a session ends, recorded when its end begins, and told by the `session.stop` event."""

    REQUESTED = "requested"
    CONTAINER_DEATH = "container_death"
    SNAPSHOT_FAILED = "snapshot_failed"
    STOP_FAILED = "stop_failed"
    CREATE_FAILED = "create_failed"


ACTIVE = frozenset({SessionStatus.STARTING, SessionStatus.RUNNING, SessionStatus.STOPPING})
TERMINAL = frozenset({SessionStatus.STOPPED, SessionStatus.ERROR})

# Every allowed change of status; a terminal status never changes again.
TRANSITIONS: dict[SessionStatus, frozenset[SessionStatus]] = {
    SessionStatus.STARTING: frozenset({SessionStatus.RUNNING, SessionStatus.STOPPING, SessionStatus.ERROR}),
    SessionStatus.RUNNING: frozenset({SessionStatus.STOPPING, SessionStatus.ERROR}),
    SessionStatus.STOPPING: frozenset({SessionStatus.STOPPED, SessionStatus.ERROR}),
    SessionStatus.STOPPED: frozenset(),
    SessionStatus.ERROR: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Session:
    """One session's record. Times are aware and in UTC.

    `gpu_id` is the daemon's number of the GPU and `gpu_uuid` its identity to the runtime. `revision` is the
    daemon-wide change counter at the record's last change; the watch stream is ordered by it.
    `snapshot_at` is the time that names the session's final snapshot: it is written before the snapshot is
    taken, so that taking it again after a crash finds the one that is already there. `ending` is why its end has begun.
    """

    id: UUID
    user_id: UUID
    tier: Tier
    pack_id: UUID
    status: SessionStatus
    gpu_id: int
    gpu_uuid: str
    slug: str
    workspace_zfs: str
    created_at: datetime
    revision: int
    step: SessionStep = SessionStep.WORKSPACE
    ending: StopReason | None = None
    container_id: str | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    snapshot_at: datetime | None = None
    error_message: str | None = None

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    @property
    def container_name(self) -> str:
        return container_name(self.slug)

    @property
    def workspace_key(self) -> WorkspaceKey:
        return WorkspaceKey(self.user_id, self.id)


def new_slug() -> str:
    """A fresh unguessable slug; whether it is unused is for the database's unique index to say."""
    return "".join(secrets.choice(SLUG_ALPHABET) for _ in range(SLUG_LENGTH))
