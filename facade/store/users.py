"""Owns reading and writing accounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from facade.store.engine import Store
from facade.store.tables import users

__all__ = ["EmailTaken", "User", "Users"]


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


class Users:
    """Accounts in the database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def by_email(self, email: str) -> User | None:
        async with self._store.reading() as connection:
            row = (await connection.execute(select(users).where(users.c.email == email))).one_or_none()
        return _user(row) if row else None

    async def by_id(self, user_id: UUID) -> User | None:
        async with self._store.reading() as connection:
            row = (await connection.execute(select(users).where(users.c.id == user_id))).one_or_none()
        return _user(row) if row else None

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


def _user(row: Row[Any]) -> User:
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
