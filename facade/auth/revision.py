"""Owns learning of what other processes have ended or changed: the database's revision, and who has to forget."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from facade.store.revisions import Revisions

__all__ = ["Revision"]


class Revision:
    """The database's revision as far as this process has acted upon it."""

    def __init__(self, rows: Revisions) -> None:
        self._rows = rows
        self._heard = 0
        self._forget_all: list[Callable[[], None]] = []
        self._forget_user: list[Callable[[UUID], None]] = []

    def on_change(self, forget_all: Callable[[], None], forget_user: Callable[[UUID], None]) -> None:
        """Whom to tell that others may have ended or changed anything, and that we have changed this user."""
        self._forget_all.append(forget_all)
        self._forget_user.append(forget_user)

    async def poll(self) -> None:
        """To be called every fraction of a second: that is how late this process is refusing what another has ended."""
        revision = await self._rows.read()
        if revision != self._heard:
            for forget in self._forget_all:
                forget()
            self._heard = revision

    def note_user(self, user_id: UUID, revision: int) -> None:
        """We have changed a user or ended what they had: nothing that is known of them is used again from here on."""
        for forget in self._forget_user:
            forget(user_id)
        self.note_own(revision)

    def note_own(self, revision: int) -> None:
        """A change of our own, which is forgotten already: unless others came between, the rest of the memory holds."""
        if revision == self._heard + 1:
            self._heard = revision
