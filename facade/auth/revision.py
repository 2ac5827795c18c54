"""Owns learning of what other processes have ended or changed: the database's revision, and who has to forget."""

from __future__ import annotations

from collections.abc import Callable

from facade.store.revisions import Revisions

__all__ = ["Revision"]


class Revision:
    """The database's revision as far as this process has acted upon it."""

    def __init__(self, rows: Revisions) -> None:
        self._rows = rows
        self._heard = 0
        self._forget: list[Callable[[], None]] = []

    def on_change(self, forget: Callable[[], None]) -> None:
        """`forget` everything whenever another process has ended or changed a user, a login or an API token."""
        self._forget.append(forget)

    async def poll(self) -> None:
        """To be called every fraction of a second: that is how late this process is refusing what another has ended."""
        revision = await self._rows.read()
        if revision != self._heard:
            for forget in self._forget:
                forget()
            self._heard = revision

    def note_own(self, revision: int) -> None:
        """A change of our own, which is forgotten already: unless others came between, the rest of the memory holds."""
        if revision == self._heard + 1:
            self._heard = revision
