"""Owns the revision: the number that tells processes which remember logins and API tokens that something has changed.

On MariaDB its row is also what writers take turns at (`facade/store/mariadb.py`).
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facade.store.engine import Store
from facade.store.tables import login_revisions

__all__ = ["Revisions", "advance"]


class Revisions:
    """The revision, read on its own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self) -> int:
        async with self._store.reading() as connection:
            return await _revision(connection)


async def advance(connection: AsyncConnection) -> int:
    """Tell every process that something has ended or changed. Returns the revision that says so."""
    await connection.execute(update(login_revisions).values(revision=login_revisions.c.revision + 1))
    return await _revision(connection)


async def _revision(connection: AsyncConnection) -> int:
    revision: int = (await connection.execute(select(login_revisions.c.revision))).scalar_one()
    return revision
