"""Owns the transactions that change an account together with its logins and API tokens, and keep the last admin."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, false, func, insert, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from facade.store.engine import Store
from facade.store.logins import require_login
from facade.store.revisions import advance
from facade.store.tables import api_tokens, logins, users
from facade.store.users import EmailTaken, User, user_of

__all__ = ["AccountRows", "Changes", "Ended", "LastAdmin", "NotAdmin", "UserNotFound"]


class UserNotFound(Exception):
    """No account has this id."""


class LastAdmin(Exception):
    """Nobody would be left who can administer the site."""


class NotAdmin(Exception):
    """Who asked for it is no admin any more."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What becomes of an account; None leaves a thing as it is."""

    is_admin: bool | None = None
    is_disabled: bool | None = None
    max_concurrent_sessions: int | None = None

    def of(self, user: User) -> User:
        """The account as it is with them."""
        told = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        return dataclasses.replace(user, **told)


@dataclass(frozen=True, slots=True)
class Ended:
    """How many logins and API tokens have ended."""

    logins: int
    api_tokens: int


class AccountRows:
    """Each method is one transaction that is alone in changing accounts, and returns the revision that tells of it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def change_own(
        self,
        user_id: UUID,
        login_digests: Collection[bytes],
        new_login: bytes,
        now: datetime,
        *,
        email: str | None,
        password_hash: str | None,
    ) -> tuple[User, int]:
        """Change address or password on behalf of a login, which a new one replaces; the user's others end.

        With the password, API tokens end too. Raises LoginEnded and EmailTaken.
        """
        try:
            async with self._store.writing() as connection:
                await require_login(connection, user_id, login_digests)
                user = await _find(connection, user_id)
                await _end_logins(connection, user_id)
                if email is not None:
                    user = dataclasses.replace(user, email=email)
                if password_hash is not None:
                    user = _with_password(user, password_hash)
                    await _end_api_tokens(connection, user_id)
                await _write(connection, user)
                await connection.execute(
                    insert(logins).values(token_digest=new_login, user_id=user_id, created_at=now, last_used_at=now)
                )
                return user, await advance(connection)
        except IntegrityError as error:
            raise EmailTaken(email) from error

    async def administer(self, user_id: UUID, changes: Changes, *, actor: UUID | None) -> tuple[User, int | None]:
        """Change an account's rights on behalf of an admin, or of an operator (None).

        An account that is disabled loses its logins and API tokens. The revision is None when nothing has changed.
        Raises UserNotFound, LastAdmin and NotAdmin.
        """
        async with self._store.writing() as connection:
            if actor is not None:
                await _require_admin(connection, actor)
            before = await _find(connection, user_id)
            after = changes.of(before)
            if _administers(before) and not _administers(after):
                await _require_another_admin(connection, user_id)
            if after == before:
                return after, None
            await _write(connection, after)
            if after.is_disabled:
                await _end_logins(connection, user_id)
                await _end_api_tokens(connection, user_id)
            return after, await advance(connection)

    async def set_password(self, user_id: UUID, password_hash: str) -> tuple[User, int]:
        """A new password, whatever the old one was; logins and API tokens end. Raises UserNotFound."""
        async with self._store.writing() as connection:
            user = _with_password(await _find(connection, user_id), password_hash)
            await _write(connection, user)
            await _end_logins(connection, user_id)
            await _end_api_tokens(connection, user_id)
            return user, await advance(connection)

    async def sign_out(self, user_id: UUID) -> tuple[User, Ended, int]:
        """End every login and every API token of the user. Raises UserNotFound."""
        async with self._store.writing() as connection:
            user = await _find(connection, user_id)
            ended = Ended(await _end_logins(connection, user_id), await _end_api_tokens(connection, user_id))
            return user, ended, await advance(connection)


def _administers(user: User) -> bool:
    return user.is_admin and not user.is_disabled


def _with_password(user: User, password_hash: str) -> User:
    return dataclasses.replace(user, password_hash=password_hash, password_revision=user.password_revision + 1)


async def _find(connection: AsyncConnection, user_id: UUID) -> User:
    row = (await connection.execute(select(users).where(users.c.id == user_id))).one_or_none()
    if row is None:
        raise UserNotFound
    return user_of(row)


async def _write(connection: AsyncConnection, user: User) -> None:
    values = {column.name: getattr(user, column.name) for column in users.columns if not column.primary_key}
    await connection.execute(update(users).where(users.c.id == user.id).values(values))


async def _require_admin(connection: AsyncConnection, user_id: UUID) -> None:
    """A process remembers an admin for a moment after another has demoted them, who must not use it to stay one."""
    query = select(func.count()).where(
        users.c.id == user_id, users.c.is_admin == true(), users.c.is_disabled == false()
    )
    if not (await connection.execute(query)).scalar_one():
        raise NotAdmin


async def _require_another_admin(connection: AsyncConnection, user_id: UUID) -> None:
    query = select(func.count()).where(
        users.c.id != user_id, users.c.is_admin == true(), users.c.is_disabled == false()
    )
    if not (await connection.execute(query)).scalar_one():
        raise LastAdmin


async def _end_logins(connection: AsyncConnection, user_id: UUID) -> int:
    return (await connection.execute(delete(logins).where(logins.c.user_id == user_id))).rowcount


async def _end_api_tokens(connection: AsyncConnection, user_id: UUID) -> int:
    return (await connection.execute(delete(api_tokens).where(api_tokens.c.user_id == user_id))).rowcount
