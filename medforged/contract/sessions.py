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
    "Session",
    "SessionLogs",
    "SessionLogsText",
    "SessionPage",
    "SessionRef",
    "SessionResult",
    "SessionStatus",
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


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session's record. Times are RFC 3339 in UTC; `gpu_id` is the daemon's number of the GPU."""

    id: UUID
    user_id: UUID
    tier: Tier
    pack_id: UUID
    status: SessionStatus
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
