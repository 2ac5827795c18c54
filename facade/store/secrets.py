"""Owns the keys that the facade makes for itself and keeps in its database, so that all its processes have the same."""

from __future__ import annotations

import secrets as random

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from facade.clock import Clock
from facade.store.engine import Store
from facade.store.tables import secrets

__all__ = ["Secrets"]


class Secrets:
    """Random keys, each made when it is first asked for."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(self, name: str, size: int) -> bytes:
        """The key of this name; of two processes that make it at once, both get the one that was first."""
        try:
            async with self._store.writing() as connection:
                if (found := await _value(connection, name)) is not None:
                    return found
                made = random.token_bytes(size)
                await connection.execute(insert(secrets).values(name=name, value=made, created_at=self._clock.now()))
                return made
        except IntegrityError:
            async with self._store.reading() as connection:
                found = await _value(connection, name)
            if found is None:
                raise
            return found


async def _value(connection: AsyncConnection, name: str) -> bytes | None:
    value: bytes | None = (await connection.execute(select(secrets.c.value).where(secrets.c.name == name))).scalar()
    return value
