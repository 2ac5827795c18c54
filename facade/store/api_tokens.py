"""Owns reading and writing API tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, delete, false, func, insert, or_, select, update

from facade.auth.credentials import Credential
from facade.auth.principals import Principal, Scope
from facade.store.engine import Store
from facade.store.logins import require_login
from facade.store.revisions import advance
from facade.store.tables import api_tokens, users

__all__ = ["MAX_TOKENS", "ApiToken", "ApiTokenRows", "TooManyTokens"]

MAX_TOKENS = 50


class TooManyTokens(Exception):
    """The user has as many API tokens as one may have."""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token as its user may see it: everything but its secret."""

    id: UUID
    user_id: UUID
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


class ApiTokenRows:
    """API tokens in the database, found by the digest of their text."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, digests: Collection[bytes]) -> list[Credential]:
        """Those that exist. A disabled user's do not."""
        query = (
            select(api_tokens, users.c.email, users.c.is_admin, users.c.max_concurrent_sessions)
            .join(users, users.c.id == api_tokens.c.user_id)
            .where(api_tokens.c.token_digest.in_(digests), users.c.is_disabled == false())
        )
        async with self._store.reading() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Credential(
                digest=row.token_digest,
                principal=Principal(
                    row.user_id, row.email, row.is_admin, row.max_concurrent_sessions, scopes=_scopes(row.scopes)
                ),
                created_at=row.created_at,
                last_used_at=row.last_used_at,
                ends_at=row.expires_at,
            )
            for row in rows
        ]

    async def of_user(self, user_id: UUID, now: datetime) -> list[ApiToken]:
        """Those that have not expired, newest first."""
        query = (
            select(api_tokens)
            .where(api_tokens.c.user_id == user_id, api_tokens.c.expires_at > now)
            .order_by(api_tokens.c.created_at.desc(), api_tokens.c.id.desc())
        )
        async with self._store.reading() as connection:
            return [_token(row) for row in (await connection.execute(query)).all()]

    async def add(self, token: ApiToken, digest: bytes, login_digests: Collection[bytes]) -> None:
        """A token made by one of these logins. Raises LoginEnded, TooManyTokens."""
        living = select(func.count()).where(
            api_tokens.c.user_id == token.user_id, api_tokens.c.expires_at > token.created_at
        )
        async with self._store.writing() as connection:
            await require_login(connection, token.user_id, login_digests)
            if (await connection.execute(living)).scalar_one() >= MAX_TOKENS:
                raise TooManyTokens
            await connection.execute(
                insert(api_tokens).values(
                    id=token.id,
                    user_id=token.user_id,
                    token_digest=digest,
                    name=token.name,
                    scopes=" ".join(sorted(token.scopes)),
                    created_at=token.created_at,
                    expires_at=token.expires_at,
                )
            )

    async def remove(self, user_id: UUID, token_id: UUID) -> tuple[bytes, int] | None:
        """End a token of this user. Returns its digest and the revision that tells of it; None where there is none."""
        own = (api_tokens.c.id == token_id, api_tokens.c.user_id == user_id)
        async with self._store.writing() as connection:
            digest = (await connection.execute(select(api_tokens.c.token_digest).where(*own))).scalar_one_or_none()
            if digest is None:
                return None
            await connection.execute(delete(api_tokens).where(*own))
            return digest, await advance(connection)

    async def touch(self, used: Mapping[bytes, datetime]) -> None:
        """Write down when tokens were last used; a later time that is already there stays."""
        if not used:
            return
        earlier = or_(api_tokens.c.last_used_at.is_(None), api_tokens.c.last_used_at < bindparam("at"))
        statement = (
            update(api_tokens)
            .where(api_tokens.c.token_digest == bindparam("of"), earlier)
            .values(last_used_at=bindparam("at"))
        )
        async with self._store.writing() as connection:
            await connection.execute(statement, [{"of": digest, "at": at} for digest, at in used.items()])

    async def remove_expired(self, now: datetime) -> int:
        """Forget tokens that have expired; nobody needs to be told, for they are refused anyway."""
        async with self._store.writing() as connection:
            return (await connection.execute(delete(api_tokens).where(api_tokens.c.expires_at <= now))).rowcount


def _token(row: Row[Any]) -> ApiToken:
    return ApiToken(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        scopes=_scopes(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )


def _scopes(text: str) -> frozenset[Scope]:
    """A scope that only a later release knows is good for nothing here."""
    return frozenset(scope for scope in Scope if scope in text.split(" "))
