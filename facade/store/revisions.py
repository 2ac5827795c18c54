"""Owns the revision: the number that tells processes which remember logins and API tokens that something has changed.

Its row is also the lock of everything that changes accounts: whoever reads before writing takes it first, so that what
was read still holds when it is written, on every database.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facade.store.engine import Store
from facade.store.tables import login_revisions

__all__ = ["Revisions", "advance", "lock"]


class Revisions:
    """The revision, read on its own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self) -> int:
        async with self._store.reading() as connection:
            return await _revision(connection)


async def lock(connection: AsyncConnection) -> None:
    """Be alone in changing accounts until the transaction ends. SQLite's writers are alone from their start."""
    await connection.execute(select(login_revisions.c.revision).with_for_update())


async def advance(connection: AsyncConnection) -> int:
    """Tell every process that something has ended or changed. Returns the revision that says so."""
    await connection.execute(update(login_revisions).values(revision=login_revisions.c.revision + 1))
    return await _revision(connection)


async def _revision(connection: AsyncConnection) -> int:
    revision: int = (await connection.execute(select(login_revisions.c.revision))).scalar_one()
    return revision
