"""Owns what an orphan is: something of this installation on the host that no record explains."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Orphan", "OrphanKind"]


class OrphanKind(StrEnum):
    """Where an orphan was found."""

    CONTAINER = "container"
    DATASET = "dataset"
    PORT = "port"
    RULES = "rules"


@dataclass(frozen=True, slots=True)
class Orphan:
    """`name` is the container's, dataset's, interface's or chain's; `reason` says why nothing explains it.

    `removed` tells that it is gone by now; `message` why it was kept, or could not be removed.
    """

    kind: OrphanKind
    name: str
    reason: str
    removed: bool = False
    message: str = ""
