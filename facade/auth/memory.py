"""Owns the bounded memory of verified credentials, so that a request of somebody who is known costs no query."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from facade.auth.credentials import Credential, CredentialRows
from facade.auth.principals import Principal
from facade.auth.revision import Revision
from facade.clock import Clock

__all__ = ["CAPACITY", "WRITE_SECONDS", "Memory", "Valid"]

# Some 0.7 kB each (docs/decisions/0023-plain-questions-before-the-application.md).
CAPACITY = 100_000
# Tokens that do not exist, at 0.2 kB: enough for browsers that still send one that has ended. Who guesses sends none
# twice.
_UNKNOWN_CAPACITY = 2_000
# How late the time of last use may be in the database; a crash forgets so much of it.
WRITE_SECONDS = 60.0
# What has not been used for so long has paused.
_PAUSED = timedelta(seconds=WRITE_SECONDS)
# Making so many ready to be written, or looking at so many, holds requests up for a millisecond or two.
_WRITE_BATCH = 50
_LOOK_BATCH = 2000

# Credential, time of its last use, now -> whether it still counts.
Valid = Callable[[Credential, datetime, datetime], bool]


@dataclass(slots=True)
class _Known:
    credential: Credential
    last_used_at: datetime
    written_at: datetime | None
    """The last use that the database knows."""

    @property
    def unwritten(self) -> bool:
        return self.written_at is None or self.last_used_at > self.written_at


class Memory:
    """Credentials of one kind that this process has seen, until the revision tells that others have ended some."""

    def __init__(
        self,
        rows: CredentialRows,
        clock: Clock,
        revision: Revision,
        valid: Valid,
        *,
        capacity: int = CAPACITY,
        lag: timedelta = timedelta(0),
    ) -> None:
        """`lag`: how late the time of last use may be in the database while a credential is in use all the time."""
        self._rows = rows
        self._clock = clock
        self._valid = valid
        self._capacity = capacity
        self._unknown_capacity = min(capacity, _UNKNOWN_CAPACITY)
        self._lag = lag
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        # Digests without a row. A random token that does not exist comes to exist only when a backup is restored.
        self._unknown: OrderedDict[bytes, None] = OrderedDict()
        # Last uses of credentials that had to make room before they were written.
        self._unwritten: dict[bytes, datetime] = {}
        # Grows whenever something is forgotten, so that what was read before that is not remembered after it.
        self._generation = 0
        revision.on_change(self.forget_all, self.forget_user)

    def __len__(self) -> int:
        """How many credentials are known."""
        return len(self._known)

    def may_exist(self, digest: bytes) -> bool:
        return digest not in self._unknown

    async def principals(self, digests: Iterable[bytes]) -> list[Principal]:
        """Whose these are, in no order; those that do not exist or have ended are nobody's."""
        now = self._clock.now()
        found: list[Principal] = []
        missing: list[bytes] = []
        for digest in digests:
            if (known := self._usable(digest, now)) is not None:
                found.append(known.credential.principal)
            elif digest not in self._unknown:
                missing.append(digest)
        return found + await self._look_up(missing, now) if missing else found

    def recall(self, digest: bytes) -> Principal | None:
        """Whose this is, without asking the database; None says nothing."""
        known = self._usable(digest, self._clock.now())
        return known.credential.principal if known is not None else None

    def forget(self, digests: Iterable[bytes]) -> None:
        """These end or have ended: nothing that is already known of them, or is being read, is used again."""
        self._generation += 1
        for digest in digests:
            self._known.pop(digest, None)
            self._unwritten.pop(digest, None)

    def forget_user(self, user_id: UUID) -> None:
        """Something of the user has changed: each of their credentials is looked up anew."""
        self._generation += 1
        theirs = [digest for digest, known in self._known.items() if known.credential.principal.user_id == user_id]
        for digest in theirs:
            self._drop(digest)

    def forget_all(self) -> None:
        """Another process has changed something: also what did not exist may do so now, out of a backup."""
        self._unwritten.update(self._uses())
        self._known.clear()
        self._unknown.clear()
        self._generation += 1

    def note_unknown(self, digest: bytes) -> None:
        """There is no such credential."""
        self._unknown[digest] = None
        if len(self._unknown) > self._unknown_capacity:
            self._unknown.popitem(last=False)

    async def write_uses(self, *, everything: bool = False) -> None:
        """Write down the last uses that the database does not know yet; of what is in use, only now and then.

        `everything`: for the end, after which nobody remembers.
        """
        now = self._clock.now()
        await self._write(dict(self._unwritten))
        # Digests alone: 100,000 pairs made at once have the garbage collector walk through everything that is known.
        digests = iter(list(self._known))
        while some := list(islice(digests, _LOOK_BATCH)):
            due = {}
            for digest in some:
                known = self._known.get(digest)
                if known is not None and known.unwritten and (everything or self._due(known, now)):
                    due[digest] = known.last_used_at
            await self._write(due)
            await asyncio.sleep(0)

    def _due(self, known: _Known, now: datetime) -> bool:
        """Whether the database is far behind, or the use has paused."""
        behind = known.written_at is None or known.last_used_at - known.written_at >= self._lag
        return behind or now - known.last_used_at >= _PAUSED

    async def _write(self, used: Mapping[bytes, datetime]) -> None:
        uses = iter(used.items())
        while some := dict(islice(uses, _WRITE_BATCH)):
            await self._rows.touch(some)
            for digest, at in some.items():
                if self._unwritten.get(digest) == at:
                    del self._unwritten[digest]
                if (known := self._known.get(digest)) is not None:
                    known.written_at = at

    def _usable(self, digest: bytes, now: datetime) -> _Known | None:
        known = self._known.get(digest)
        if known is None:
            return None
        if not self._valid(known.credential, known.last_used_at, now):
            # Another process may have seen it in use since: the database is asked.
            del self._known[digest]
            return None
        known.last_used_at = now
        self._known.move_to_end(digest)
        return known

    async def _look_up(self, digests: list[bytes], now: datetime) -> list[Principal]:
        while True:
            generation = self._generation
            rows = {row.digest: row for row in await self._rows.find(digests)}
            if generation == self._generation:
                break
        found = []
        for digest in digests:
            if (row := rows.get(digest)) is None:
                self.note_unknown(digest)
            elif (known := self._accept(row, now)) is not None:
                self._remember(known)
                found.append(row.principal)
        return found

    def _accept(self, row: Credential, now: datetime) -> _Known | None:
        written = row.last_used_at
        used = [at for at in (written, self._unwritten.get(row.digest)) if at is not None]
        if not self._valid(row, max(used, default=row.created_at), now):
            return None
        return _Known(row, now, written)

    def _remember(self, known: _Known) -> None:
        self._known[known.credential.digest] = known
        if len(self._known) > self._capacity:
            self._drop(next(iter(self._known)))

    def _drop(self, digest: bytes) -> None:
        """Forget what is known, but not when it was last used."""
        known = self._known.pop(digest)
        if known.unwritten:
            self._unwritten[digest] = known.last_used_at

    def _uses(self) -> dict[bytes, datetime]:
        return {digest: known.last_used_at for digest, known in self._known.items() if known.unwritten}
