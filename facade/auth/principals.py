"""Owns the principal: who is asking, as far as handlers need to know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

__all__ = ["Principal", "Scope"]


class Scope(StrEnum):
    """What an API token may be for. A route without one cannot be called by token at all."""

    ACCOUNT_READ = "account:read"
    SESSIONS_READ = "sessions:read"
    SESSIONS_WRITE = "sessions:write"
    ADMIN_READ = "admin:read"
    ADMIN_WRITE = "admin:write"


@dataclass(frozen=True, slots=True)
class Principal:
    """A signed-in user."""

    user_id: UUID
    email: str
    is_admin: bool
    max_concurrent_sessions: int
