"""Owns the principal: who is asking, as far as handlers need to know."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

__all__ = ["Principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A signed-in user."""

    user_id: UUID
    email: str
    is_admin: bool
    max_concurrent_sessions: int
