"""Owns the principal: who is asking, and what the way in which they show it lets them do."""

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
    """A user. `scopes` are those of the API token; None stands for a login, which has every right of its user."""

    user_id: UUID
    email: str
    is_admin: bool
    max_concurrent_sessions: int
    scopes: frozenset[Scope] | None = None

    def administers(self, scope: Scope) -> bool:
        """Whether this is an admin who may act as one; an admin's token does only with the scope for it."""
        return self.is_admin and (self.scopes is None or scope in self.scopes)
