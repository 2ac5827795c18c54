"""Owns reading and writing logins."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, delete, false, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facade.auth.credentials import Credential
from facade.auth.principals import Principal
from facade.store.engine import Store
from facade.store.revisions import advance
from facade.store.tables import logins, users
from facade.store.users import User

__all__ = ["LoginEnded", "LoginRows", "NotAdmitted", "require_login"]


class NotAdmitted(Exception):
    """The account was disabled, or its password changed, after its password had been checked."""


class LoginEnded(Exception):
    """The login on whose behalf something was to be changed has ended meanwhile."""


class LoginRows:
    """Logins in the database, found by the digest of their token."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, digests: Collection[bytes]) -> list[Credential]:
        """Those that exist. A disabled user's do not."""
        query = (
            select(logins, users.c.email, users.c.is_admin, users.c.max_concurrent_sessions)
            .join(users, users.c.id == logins.c.user_id)
            .where(logins.c.token_digest.in_(digests), users.c.is_disabled == false())
        )
        async with self._store.reading() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Credential(
                digest=row.token_digest,
                principal=Principal(row.user_id, row.email, row.is_admin, row.max_concurrent_sessions),
                created_at=row.created_at,
                last_used_at=row.last_used_at,
            )
            for row in rows
        ]

    async def add(self, digest: bytes, user: User, now: datetime) -> None:
        """A login of the account as it was when its password was checked. Raises NotAdmitted."""
        unchanged = select(users.c.id).where(
            users.c.id == user.id,
            users.c.password_revision == user.password_revision,
            users.c.is_disabled == false(),
        )
        async with self._store.writing() as connection:
            if (await connection.execute(unchanged)).one_or_none() is None:
                raise NotAdmitted
            await connection.execute(
                insert(logins).values(token_digest=digest, user_id=user.id, created_at=now, last_used_at=now)
            )

    async def remove(self, digests: Collection[bytes]) -> tuple[int, int]:
        """End logins. Returns how many there were, and the revision that tells of it."""
        async with self._store.writing() as connection:
            result = await connection.execute(delete(logins).where(logins.c.token_digest.in_(digests)))
            return result.rowcount, await advance(connection) if result.rowcount else 0

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


async def require_login(connection: AsyncConnection, user_id: UUID, digests: Collection[bytes]) -> None:
    """Raises LoginEnded unless one of these is still a login of the user. Within a transaction that writes.

    A process remembers a login for a moment after another has ended it; nothing that outlives the login may be made
    of that moment.
    """
    query = select(func.count()).where(logins.c.user_id == user_id, logins.c.token_digest.in_(digests))
    if not (await connection.execute(query)).scalar_one():
        raise LoginEnded
