"""Owns the session as the public API tells it, and the body of creating one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from facade.schemas.paging import Paging
from medforged.contract import sessions as contract
from medforged.contract.sessions import SessionStatus, Tier

__all__ = ["CreateSession", "CurrentSession", "Message", "SessionQuery", "SessionView", "StartedSession"]


class CreateSession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of creating a session; without `pack_id` it runs the default pack."""

    tier: Tier = Tier.PUBLIC
    pack_id: UUID | None = None


class SessionQuery(Paging, frozen=True, kw_only=True):
    """Query of one's sessions."""

    status: Annotated[list[SessionStatus], msgspec.Meta(description="Only these; repeated or separated by commas.")] = (
        msgspec.field(default_factory=list)
    )


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A session's record. Times are RFC 3339 in UTC."""

    id: UUID
    user_id: UUID
    tier: Tier
    pack_id: UUID
    status: SessionStatus
    container_id: str | None
    gpu_id: int
    slug: str
    workspace_zfs: str
    created_at: datetime
    started_at: datetime | None
    stopped_at: datetime | None
    error_message: str | None

    @classmethod
    def of(cls, session: contract.Session) -> SessionView:
        """What the public may see of a record; the GPU's UUID and the revision are the daemon's own."""
        return cls(**{name: getattr(session, name) for name in cls.__struct_fields__})


class StartedSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session whose IDE answers."""

    message: str
    session: SessionView


class CurrentSession(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's newest active session, or null."""

    session: SessionView | None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, for people."""

    message: str
