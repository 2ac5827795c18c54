"""Owns changing a session's record and telling watchers in one step, so that neither is ever forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from uuid import UUID

from medforged.domain.errors import StateConflict
from medforged.domain.sessions import Session, SessionStatus, SessionStep
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

    async def step(self, session: Session, step: SessionStep) -> Session:
        """Record what is about to be done. Raises StateConflict when somebody else has moved the session on."""
        return await self.change(session.id, {session.status}, SessionChange(step=step))

    async def notice(self, session: Session, change: SessionChange) -> None:
        """Write a remark into a record that nobody else has moved on meanwhile."""
        with contextlib.suppress(StateConflict):
            await self.change(session.id, {session.status}, change)

    async def get(self, session_id: UUID) -> Session:
        return await self._state.session(session_id)

    async def recorded(self, session_ids: Collection[UUID]) -> frozenset[UUID]:
        return await self._state.recorded(session_ids)

    async def active(self) -> tuple[Session, ...]:
        return await self._state.active()
