"""Owns translating the `packs.*` methods."""

from __future__ import annotations

from medforged.contract import packs as wire
from medforged.domain.packs import Pack

__all__ = ["PackHandlers"]


class PackHandlers:
    """The `packs.*` methods."""

    def __init__(self, packs: tuple[Pack, ...]) -> None:
        self._packs = packs

    async def list(self, _params: wire.ListPacks) -> wire.PackList:
        return wire.PackList(packs=[wire.Pack(id=pack.id, name=pack.name, image=pack.image) for pack in self._packs])
