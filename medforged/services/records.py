"""Owns changing a session's record and telling watchers in one step, so that neither is ever forgotten."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from medforged.domain.sessions import Session, SessionStatus
from medforged.ports.state import Allocation, SessionChange, StateStore
from medforged.services.changes import ChangeFeed

__all__ = ["Records"]


class Records:
    """The sessions' records as the services write them."""

    def __init__(self, state: StateStore, feed: ChangeFeed) -> None:
        self._state = state
        self._feed = feed

    async def allocate(self, allocation: Allocation) -> Session:
        session = await self._state.allocate(allocation)
        self._feed.publish(session)
        return session

    async def change(self, session_id: UUID, expected: Collection[SessionStatus], change: SessionChange) -> Session:
        session = await self._state.change(session_id, expected, change)
        self._feed.publish(session)
        return session

    async def get(self, session_id: UUID) -> Session:
        return await self._state.session(session_id)

    async def active(self) -> tuple[Session, ...]:
        return await self._state.active()
