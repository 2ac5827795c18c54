"""Owns translating the `orphans.*` methods."""

from __future__ import annotations

from medforged.contract import orphans as wire
from medforged.domain.orphans import Orphan
from medforged.services.orphans import OrphanSearch

__all__ = ["OrphanHandlers"]


class OrphanHandlers:
    """The `orphans.*` methods."""

    def __init__(self, orphans: OrphanSearch) -> None:
        self._orphans = orphans

    async def list(self, _params: wire.ListOrphans) -> wire.OrphanList:
        return _to_wire(*await self._orphans.find())

    async def remove(self, _params: wire.RemoveOrphans) -> wire.OrphanList:
        return _to_wire(*await self._orphans.remove())


def _to_wire(orphans: tuple[Orphan, ...], problems: tuple[str, ...]) -> wire.OrphanList:
    return wire.OrphanList(
        orphans=[
            wire.Orphan(
                kind=wire.OrphanKind(orphan.kind.value),
                name=orphan.name,
                reason=orphan.reason,
                removed=orphan.removed,
                message=orphan.message,
            )
            for orphan in orphans
        ],
        problems=[*problems],
    )
