"""Owns the pack as the socket tells it."""

from __future__ import annotations

from uuid import UUID

import msgspec

__all__ = ["ListPacks", "Pack", "PackList"]


class Pack(msgspec.Struct, frozen=True, kw_only=True):
    """`image` is pinned by digest."""

    id: UUID
    name: str
    image: str


class ListPacks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class PackList(msgspec.Struct, frozen=True, kw_only=True):
    packs: list[Pack]
