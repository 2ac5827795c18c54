"""Owns reading and writing accounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from facade.store.engine import Store
from facade.store.tables import users

__all__ = ["EmailTaken", "User", "UserFilter", "Users", "user_of"]


class EmailTaken(Exception):
    """Another account has this e-mail address."""


@dataclass(frozen=True, slots=True)
class User:
    """An account. `email` is in the one spelling that `facade.auth.emails` makes.

    `password_revision` counts the changes of the password: what was checked against an earlier one does not count.
    """

    id: UUID
    email: str
    password_hash: str
    is_admin: bool
    max_concurrent_sessions: int
    created_at: datetime
    is_disabled: bool = False
    password_revision: int = 0


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which accounts are meant; None leaves a thing open. `email` is how the address begins."""

    email: str | None = None
    is_admin: bool | None = None
    is_disabled: bool | None = None


class Users:
    """Accounts in the database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def by_email(self, email: str) -> User | None:
        async with self._store.reading() as connection:
            row = (await connection.execute(select(users).where(users.c.email == email))).one_or_none()
        return user_of(row) if row else None

    async def by_id(self, user_id: UUID) -> User | None:
        async with self._store.reading() as connection:
            row = (await connection.execute(select(users).where(users.c.id == user_id))).one_or_none()
        return user_of(row) if row else None

    async def page(self, wanted: UserFilter, before: tuple[datetime, UUID] | None, limit: int) -> list[User]:
        """Newest first, those made before this moment, and of the same moment those with smaller ids."""
        query = select(users).order_by(users.c.created_at.desc(), users.c.id.desc()).limit(limit)
        if wanted.email is not None:
            query = query.where(users.c.email.startswith(wanted.email, autoescape=True))
        if wanted.is_admin is not None:
            query = query.where(users.c.is_admin == wanted.is_admin)
        if wanted.is_disabled is not None:
            query = query.where(users.c.is_disabled == wanted.is_disabled)
        if before is not None:
            made_at, user_id = before
            same = and_(users.c.created_at == made_at, users.c.id < user_id)
            query = query.where(or_(users.c.created_at < made_at, same))
        async with self._store.reading() as connection:
            return [user_of(row) for row in (await connection.execute(query)).all()]

    async def add(self, user: User) -> None:
        """Raises EmailTaken; that no two accounts share an address is the database's to hold."""
        try:
            async with self._store.writing() as connection:
                await connection.execute(
                    insert(users).values(
                        id=user.id,
                        email=user.email,
                        password_hash=user.password_hash,
                        is_admin=user.is_admin,
                        max_concurrent_sessions=user.max_concurrent_sessions,
                        created_at=user.created_at,
                        is_disabled=user.is_disabled,
                        password_revision=user.password_revision,
                    )
                )
        except IntegrityError as error:
            raise EmailTaken(user.email) from error

    async def replace_password_hash(self, user_id: UUID, old: str, new: str) -> None:
        """Put a new hash of the same password in place of an old one, unless the password has changed meanwhile."""
        async with self._store.writing() as connection:
            await connection.execute(
                update(users).where(users.c.id == user_id, users.c.password_hash == old).values(password_hash=new)
            )


def user_of(row: Row[Any]) -> User:
    """The account that a row of the table is."""
    return User(
        id=row.id,
        email=row.email,
        password_hash=row.password_hash,
        is_admin=row.is_admin,
        max_concurrent_sessions=row.max_concurrent_sessions,
        created_at=row.created_at,
        is_disabled=row.is_disabled,
        password_revision=row.password_revision,
    )
