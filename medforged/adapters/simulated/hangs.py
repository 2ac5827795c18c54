"""Owns calls that do not return: a stuck engine or pool, for tests of who has to wait for it and who must not."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

__all__ = ["Hang", "Hangs"]


class Hang:
    """Calls that match wait here, before they have any effect, until `release`."""

    def __init__(self, operation: str, subject: Hashable | None) -> None:
        self._operation = operation
        self._subject = subject
        self._released = asyncio.Event()
        self._arrived = asyncio.Event()
        self.waiting = 0
        """How many calls wait now."""

    async def arrived(self) -> None:
        """Wait until a call has come to hang here."""
        await self._arrived.wait()

    def release(self) -> None:
        """Let those that wait go on, and later ones pass."""
        self._released.set()

    def holds(self, operation: str, subject: Hashable) -> bool:
        """Whether such a call would have to wait."""
        return not self._released.is_set() and operation == self._operation and self._subject in (None, subject)

    async def wait(self) -> None:
        self.waiting += 1
        self._arrived.set()
        try:
            await self._released.wait()
        finally:
            self.waiting -= 1


class Hangs:
    """Those of one adapter."""

    def __init__(self) -> None:
        self._hangs: list[Hang] = []

    def add(self, operation: str, subject: Hashable | None) -> Hang:
        """Let calls of this operation hang, all of them or those about one subject."""
        hang = Hang(operation, subject)
        self._hangs.append(hang)
        return hang

    async def wait(self, operation: str, subject: Hashable) -> None:
        """Every call passes here."""
        for hang in tuple(self._hangs):
            if hang.holds(operation, subject):
                await hang.wait()
