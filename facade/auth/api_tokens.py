"""Owns API tokens as requests meet them: made once, remembered in memory like logins, ended at once when revoked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog

from facade.auth.credentials import Credential
from facade.auth.memory import CAPACITY, WRITE_SECONDS, Memory
from facade.auth.principals import Principal, Scope
from facade.auth.revision import Revision
from facade.auth.tokens import digest, new_api_token
from facade.clock import Clock
from facade.store.api_tokens import ApiToken, ApiTokenRows

__all__ = ["ApiTokens"]

_log = structlog.get_logger()


class ApiTokens:
    """Every API token that this process has seen, and the way to the others."""

    write_interval_seconds = WRITE_SECONDS

    def __init__(self, rows: ApiTokenRows, clock: Clock, revision: Revision, *, capacity: int = CAPACITY) -> None:
        self._rows = rows
        self._clock = clock
        self._revision = revision
        self._memory = Memory(rows, clock, revision, _valid, capacity=capacity)

    @property
    def remembered(self) -> int:
        """How many are known without asking the database."""
        return len(self._memory)

    async def identify(self, text: str) -> Principal | None:
        """Whose token this is, with its scopes; None when it does not exist, has expired or was revoked."""
        found = await self._memory.principals([digest(text)])
        return found[0] if found else None

    async def create(
        self, user_id: UUID, login_tokens: Iterable[str], name: str, scopes: Collection[Scope], lifetime: timedelta
    ) -> tuple[str, ApiToken]:
        """A new token and its text, which is kept nowhere. Raises LoginEnded, TooManyTokens."""
        text, now = new_api_token(), self._clock.now()
        token = ApiToken(
            id=uuid4(),
            user_id=user_id,
            name=name,
            scopes=frozenset(scopes),
            created_at=now,
            expires_at=now + lifetime,
            last_used_at=None,
        )
        await self._rows.add(token, digest(text), [digest(login) for login in login_tokens])
        _log.info("api_token.created", user_id=str(user_id), api_token_id=str(token.id), scopes=sorted(scopes))
        return text, token

    async def of_user(self, user_id: UUID) -> list[ApiToken]:
        """Those that have not expired, newest first. Their last use is up to a minute late."""
        return await self._rows.of_user(user_id, self._clock.now())

    async def revoke(self, user_id: UUID, token_id: UUID) -> bool:
        """End a token of this user; false when they have none with this id."""
        removed = await self._rows.remove(user_id, token_id)
        if removed is None:
            return False
        key, revision = removed
        self._memory.forget([key])
        self._memory.note_unknown(key)
        self._revision.note_own(revision)
        _log.info("api_token.revoked", user_id=str(user_id), api_token_id=str(token_id))
        return True

    async def write_uses(self) -> None:
        """Write down the last uses that the database does not know yet."""
        await self._memory.write_uses()

    async def remove_expired(self) -> int:
        """Forget the rows of tokens that have expired."""
        return await self._rows.remove_expired(self._clock.now())


def _valid(token: Credential, _last_used_at: datetime, now: datetime) -> bool:
    return token.ends_at is not None and now < token.ends_at
