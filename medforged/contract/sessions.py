"""Owns the session as the socket tells it, and the parameters and results of the `sessions.*` methods."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec

__all__ = [
    "CreateSession",
    "ListSessions",
    "ReconcileAction",
    "ReconcileOutcome",
    "ReconcileReport",
    "ReconcileSessions",
    "Session",
    "SessionLogs",
    "SessionLogsText",
    "SessionPage",
    "SessionRef",
    "SessionResult",
    "SessionStatus",
    "SessionStep",
    "StopAccepted",
    "Tier",
]


class Tier(StrEnum):
    PUBLIC = "public"
    PRIVATE = "private"


class SessionStatus(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERROR = "error"


class SessionStep(StrEnum):
    """What is being done for a session, in the order of its life."""

    WORKSPACE = "workspace"
    CONTAINER = "container"
    START = "start"
    SERVE = "serve"
    STOP = "stop"
    SNAPSHOT = "snapshot"
    REMOVE = "remove"
    RELEASE = "release"
    DONE = "done"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session's record. Times are RFC 3339 in UTC; `gpu_id` is the daemon's number of the GPU."""

    id: UUID
    user_id: UUID
    tier: Tier
    pack_id: UUID
    status: SessionStatus
    step: SessionStep
    container_id: str | None
    gpu_id: int
    gpu_uuid: str
    slug: str
    workspace_zfs: str
    created_at: datetime
    started_at: datetime | None
    stopped_at: datetime | None
    error_message: str | None
    revision: int


class CreateSession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`max_concurrent_sessions` is the user's own limit, which the facade keeps."""

    user_id: UUID
    tier: Tier = Tier.PUBLIC
    pack_id: UUID | None = None
    max_concurrent_sessions: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1


class SessionResult(msgspec.Struct, frozen=True, kw_only=True):
    session: Session


class SessionRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    session_id: UUID


class StopAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """`requested` is false when the session had already ended."""

    session: Session
    requested: bool


class ListSessions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Newest first. `before_created_at` and `before_id` go together: the last session already seen."""

    user_id: UUID | None = None
    statuses: list[SessionStatus] = []
    before_created_at: datetime | None = None
    before_id: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    sessions: list[Session]
    has_more: bool


class SessionLogs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    session_id: UUID
    lines: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 200


class SessionLogsText(msgspec.Struct, frozen=True, kw_only=True):
    """Text of the tenant's own making: show it, never parse it."""

    text: str


class ReconcileOutcome(StrEnum):
    """What a pass did about what it found."""

    RUNNING = "running"
    """Recorded as running: its container runs and its IDE answers."""
    ENDED = "ended"
    """Brought to its end: stopped, or in error with a snapshot."""
    REMOVED = "removed"
    """A container that was left of an ended session is gone."""
    RELEASED = "released"
    """A GPU in quarantine was seen to be free."""
    PENDING = "pending"
    """Still being worked on when the report was made."""
    FAILED = "failed"
    """Could not be done now and is tried again; `message` says why."""


class ReconcileSessions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ReconcileAction(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that did not match. `found` is the container's state, or what else was seen.

    `session_id` and `slug` are None for what belongs to no session; `subject` names it for people.
    """

    subject: str
    session_id: UUID | None
    slug: str | None
    found: str
    outcome: ReconcileOutcome
    message: str = ""


class ReconcileReport(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over every active session: how many there were, how long it took, and what did not match.

    `orphans` counts what no record explains; `orphans.list` tells them. `problems` are the parts of the host that could
    not be looked at for them.
    """

    seconds: float
    sessions: int
    actions: list[ReconcileAction]
    orphans: int
    problems: list[str]
