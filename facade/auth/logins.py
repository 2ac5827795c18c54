"""Owns logins as requests meet them: which cookie is whose, remembered in memory, ended at once when revoked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from facade.auth.credentials import Credential
from facade.auth.memory import CAPACITY, WRITE_SECONDS, Memory
from facade.auth.principals import Principal
from facade.auth.revision import Revision
from facade.auth.tokens import digest, new_token
from facade.clock import Clock
from facade.store.logins import LoginRows
from facade.store.users import User

__all__ = ["Logins"]


# Ten minutes of the days that a login may be idle; 100,000 logins in use are written down one by one, for some 40 us.
_LAG = timedelta(minutes=10)


class Logins:
    """Every login that this process has seen, and the way to the others."""

    def __init__(
        self,
        rows: LoginRows,
        clock: Clock,
        revision: Revision,
        *,
        idle_ttl: timedelta,
        max_ttl: timedelta,
        capacity: int = CAPACITY,
    ) -> None:
        self._rows = rows
        self._clock = clock
        self._revision = revision
        self._idle_ttl = idle_ttl
        self._max_ttl = max_ttl
        self._memory = Memory(rows, clock, revision, self._valid, capacity=capacity, lag=min(_LAG, idle_ttl / 10))

    @property
    def write_interval_seconds(self) -> float:
        """How often `write_uses` is due; a short idle time needs it more often."""
        return min(WRITE_SECONDS, self._idle_ttl.total_seconds() / 10)

    @property
    def remembered(self) -> int:
        """How many are known without asking the database."""
        return len(self._memory)

    async def identify(self, tokens: Iterable[str]) -> Principal | None:
        """Whose these tokens are: one user's, or nobody's when they belong to several or to none."""
        found = await self._memory.principals(map(digest, tokens))
        principals = {principal.user_id: principal for principal in found}
        return next(iter(principals.values())) if len(principals) == 1 else None

    def recall(self, token: str) -> Principal | None:
        """Whose this token is, as far as memory tells; None says nothing, `identify` does."""
        return self._memory.recall(digest(token))

    async def start(self, user: User) -> str:
        """Sign a user in; the token is for the cookie and is kept nowhere. Raises NotAdmitted."""
        token = new_token()
        await self._rows.add(digest(token), user, self._clock.now())
        return token

    async def revoke(self, tokens: Iterable[str]) -> int:
        """End these logins; returns how many there were. Nothing that is already known of them is used again."""
        digests = [key for key in map(digest, tokens) if self._memory.may_exist(key)]
        if not digests:
            return 0
        self._memory.forget(digests)
        count, revision = await self._rows.remove(digests)
        self._memory.forget(digests)
        for key in digests:
            self._memory.note_unknown(key)
        if count:
            self._revision.note_own(revision)
        return count

    async def write_uses(self, *, everything: bool = False) -> None:
        """Write down the last uses that the database does not know yet."""
        await self._memory.write_uses(everything=everything)

    async def remove_expired(self) -> int:
        """Forget the rows of logins that have run out."""
        await self.write_uses()
        now = self._clock.now()
        return await self._rows.remove_expired(used_before=now - self._idle_ttl, created_before=now - self._max_ttl)

    def _valid(self, login: Credential, last_used_at: datetime, now: datetime) -> bool:
        return now - last_used_at < self._idle_ttl and now - login.created_at < self._max_ttl
