"""Owns the orphan as the socket tells it, and the parameters and results of the `orphans.*` methods."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = ["ListOrphans", "Orphan", "OrphanKind", "OrphanList", "RemoveOrphans"]


class OrphanKind(StrEnum):
    CONTAINER = "container"
    DATASET = "dataset"
    PORT = "port"
    RULES = "rules"


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """Something of this installation on the host that no record explains, and why it is thought so.

    After a removal, `removed` tells whether it is gone, and `message` why it was kept.
    """

    kind: OrphanKind
    name: str
    reason: str
    removed: bool = False
    message: str = ""


class ListOrphans(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class RemoveOrphans(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them. A dataset that holds anything is kept, whatever is asked."""


class OrphanList(msgspec.Struct, frozen=True, kw_only=True):
    """`problems` are the parts of the host that could not be looked at, one sentence each."""

    orphans: list[Orphan]
    problems: list[str]
