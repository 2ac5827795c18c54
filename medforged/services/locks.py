"""Owns mutual exclusion per session, so that create, stop and reconciliation of one session never overlap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

__all__ = ["SessionLocks"]


class SessionLocks:
    """One lock per session, kept only while somebody holds or wants it."""

    def __init__(self) -> None:
        self._locks: dict[UUID, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, session_id: UUID) -> AsyncIterator[None]:
        lock, users = self._locks.get(session_id, (asyncio.Lock(), 0))
        self._locks[session_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[session_id]
            if users == 1:
                del self._locks[session_id]
            else:
                self._locks[session_id] = (lock, users - 1)

    def held(self, session_id: UUID) -> bool:
        """Whether somebody works on this session now."""
        return session_id in self._locks
