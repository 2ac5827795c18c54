"""Owns what a pack is: a named, digest-pinned image that sessions run."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

__all__ = ["DEFAULT_PACK_ID", "Pack"]

# The default pack's well-known id; clients that name no pack get this one.
DEFAULT_PACK_ID = UUID("00000000-0000-0000-0000-000000000100")


@dataclass(frozen=True, slots=True)
class Pack:
    """`image` is `name[:tag]@sha256:<digest>`; a tag alone is never run."""

    id: UUID
    name: str
    image: str
