"""Owns reading and writing logins, and the revision that tells other processes of endings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facade.auth.principals import Principal
from facade.store.engine import Store
from facade.store.tables import login_revisions, logins, users

__all__ = ["LoginRow", "LoginRows"]


@dataclass(frozen=True, slots=True)
class LoginRow:
    """A login and whose it is."""

    digest: bytes
    principal: Principal
    created_at: datetime
    last_used_at: datetime


class LoginRows:
    """Logins in the database, found by the digest of their token."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, digests: Collection[bytes]) -> list[LoginRow]:
        query = (
            select(logins, users.c.email, users.c.is_admin, users.c.max_concurrent_sessions)
            .join(users, users.c.id == logins.c.user_id)
            .where(logins.c.token_digest.in_(digests))
        )
        async with self._store.reading() as connection:
            rows = (await connection.execute(query)).all()
        return [
            LoginRow(
                digest=row.token_digest,
                principal=Principal(row.user_id, row.email, row.is_admin, row.max_concurrent_sessions),
                created_at=row.created_at,
                last_used_at=row.last_used_at,
            )
            for row in rows
        ]

    async def add(self, digest: bytes, user_id: UUID, now: datetime) -> None:
        async with self._store.writing() as connection:
            await connection.execute(
                insert(logins).values(token_digest=digest, user_id=user_id, created_at=now, last_used_at=now)
            )

    async def remove(self, digests: Collection[bytes]) -> tuple[int, int]:
        """End logins. Returns how many there were, and the revision that tells of it."""
        async with self._store.writing() as connection:
            result = await connection.execute(delete(logins).where(logins.c.token_digest.in_(digests)))
            if result.rowcount:
                await connection.execute(update(login_revisions).values(revision=login_revisions.c.revision + 1))
            return result.rowcount, await _revision(connection)

    async def touch(self, used: Mapping[bytes, datetime]) -> None:
        """Write down when logins were last used; a later time that is already there stays."""
        if not used:
            return
        statement = (
            update(logins)
            .where(logins.c.token_digest == bindparam("of"), logins.c.last_used_at < bindparam("at"))
            .values(last_used_at=bindparam("at"))
        )
        async with self._store.writing() as connection:
            await connection.execute(statement, [{"of": digest, "at": at} for digest, at in used.items()])

    async def remove_expired(self, *, used_before: datetime, created_before: datetime) -> int:
        """Forget logins that have run out; nobody needs to be told, for they are refused anyway."""
        expired = or_(logins.c.last_used_at <= used_before, logins.c.created_at <= created_before)
        async with self._store.writing() as connection:
            return (await connection.execute(delete(logins).where(expired))).rowcount

    async def revision(self) -> int:
        async with self._store.reading() as connection:
            return await _revision(connection)


async def _revision(connection: AsyncConnection) -> int:
    revision: int = (await connection.execute(select(login_revisions.c.revision))).scalar_one()
    return revision
