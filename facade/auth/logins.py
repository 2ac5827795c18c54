"""Owns logins as requests meet them: which cookie is whose, remembered in memory, ended at once when revoked.

Verified logins are kept in a bounded memory, so that a request of a signed-in browser costs no query. What other
processes end is learnt from the database's login revision, which `poll` reads every fraction of a second.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from facade.auth.principals import Principal
from facade.auth.tokens import digest, new_token
from facade.clock import Clock
from facade.store.logins import LoginRow, LoginRows

__all__ = ["Logins"]

_CAPACITY = 20_000
# How late the time of last use may be in the database; a crash forgets so much of it.
_WRITE_SECONDS = 60.0


@dataclass(slots=True)
class _Known:
    principal: Principal
    created_at: datetime
    last_used_at: datetime
    written_at: datetime
    """The last use that the database knows."""


class Logins:
    """Every login that this process has seen, and the way to the others."""

    def __init__(
        self, rows: LoginRows, clock: Clock, *, idle_ttl: timedelta, max_ttl: timedelta, capacity: int = _CAPACITY
    ) -> None:
        self._rows = rows
        self._clock = clock
        self._idle_ttl = idle_ttl
        self._max_ttl = max_ttl
        self._capacity = capacity
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        # Digests without a row. A random token that does not exist never comes to exist, so this cannot turn false.
        self._unknown: OrderedDict[bytes, None] = OrderedDict()
        # Last uses of logins that had to make room before they were written.
        self._unwritten: dict[bytes, datetime] = {}
        self._revision = 0
        # Grows whenever something is forgotten, so that what was read before that is not remembered after it.
        self._generation = 0

    @property
    def write_interval_seconds(self) -> float:
        """How often `write_uses` is due; a short idle time needs it more often."""
        return min(_WRITE_SECONDS, self._idle_ttl.total_seconds() / 10)

    async def identify(self, tokens: Iterable[str]) -> Principal | None:
        """Whose these tokens are: one user's, or nobody's when they belong to several or to none."""
        now = self._clock.now()
        principals: dict[object, Principal] = {}
        missing: list[bytes] = []
        for token in tokens:
            key = digest(token)
            if (known := self._usable(key, now)) is not None:
                principals[known.principal.user_id] = known.principal
            elif key not in self._unknown:
                missing.append(key)
        if missing:
            for principal in await self._look_up(missing, now):
                principals[principal.user_id] = principal
        return next(iter(principals.values())) if len(principals) == 1 else None

    async def start(self, user_id: UUID) -> str:
        """Sign a user in; the token is for the cookie and is kept nowhere."""
        token = new_token()
        await self._rows.add(digest(token), user_id, self._clock.now())
        return token

    async def revoke(self, tokens: Iterable[str]) -> int:
        """End these logins; returns how many there were. Nothing that is already known of them is used again."""
        keys = [key for key in map(digest, tokens) if key not in self._unknown]
        if not keys:
            return 0
        self._generation += 1
        for key in keys:
            self._known.pop(key, None)
            self._unwritten.pop(key, None)
        count, revision = await self._rows.remove(keys)
        for key in keys:
            self._known.pop(key, None)
            self._note_unknown(key)
        self._generation += 1
        if count and revision == self._revision + 1:
            # Nobody else has ended a login meanwhile: the rest of the memory still holds.
            self._revision = revision
        return count

    async def poll(self) -> None:
        """Learn whether another process has ended or changed logins, and forget what may no longer hold."""
        revision = await self._rows.revision()
        if revision != self._revision:
            self._unwritten.update(self._uses())
            self._known.clear()
            self._generation += 1
            self._revision = revision

    async def write_uses(self) -> None:
        """Write down the last uses that the database does not know yet."""
        used = {**self._unwritten, **self._uses()}
        await self._rows.touch(used)
        for key, at in used.items():
            if self._unwritten.get(key) == at:
                del self._unwritten[key]
            if (known := self._known.get(key)) is not None:
                known.written_at = at

    async def remove_expired(self) -> int:
        """Forget the rows of logins that have run out."""
        await self.write_uses()
        now = self._clock.now()
        return await self._rows.remove_expired(used_before=now - self._idle_ttl, created_before=now - self._max_ttl)

    def _usable(self, key: bytes, now: datetime) -> _Known | None:
        known = self._known.get(key)
        if known is None:
            return None
        if not self._valid(known.created_at, known.last_used_at, now):
            # Another process may have seen it in use since: the database is asked.
            del self._known[key]
            return None
        known.last_used_at = now
        self._known.move_to_end(key)
        return known

    def _valid(self, created_at: datetime, last_used_at: datetime, now: datetime) -> bool:
        return now - last_used_at < self._idle_ttl and now - created_at < self._max_ttl

    async def _look_up(self, keys: list[bytes], now: datetime) -> list[Principal]:
        while True:
            generation = self._generation
            rows = {row.digest: row for row in await self._rows.find(keys)}
            if generation == self._generation:
                break
        principals = []
        for key in keys:
            if (row := rows.get(key)) is None:
                self._note_unknown(key)
            elif (known := self._accept(row, now)) is not None:
                self._remember(key, known)
                principals.append(known.principal)
        return principals

    def _accept(self, row: LoginRow, now: datetime) -> _Known | None:
        last_used_at = max(row.last_used_at, self._unwritten.get(row.digest, row.last_used_at))
        if not self._valid(row.created_at, last_used_at, now):
            return None
        return _Known(row.principal, row.created_at, now, row.last_used_at)

    def _remember(self, key: bytes, known: _Known) -> None:
        self._known[key] = known
        if len(self._known) > self._capacity:
            evicted, out = self._known.popitem(last=False)
            if out.last_used_at > out.written_at:
                self._unwritten[evicted] = out.last_used_at

    def _note_unknown(self, key: bytes) -> None:
        self._unknown[key] = None
        if len(self._unknown) > self._capacity:
            self._unknown.popitem(last=False)

    def _uses(self) -> dict[bytes, datetime]:
        return {key: known.last_used_at for key, known in self._known.items() if known.last_used_at > known.written_at}
