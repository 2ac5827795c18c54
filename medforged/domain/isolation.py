"""Owns what is known about east-west isolation at a moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["IsolationReport", "Stray", "StrayKind"]


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """The result of establishing or probing isolation.

    `holds` is true only when every layer is in place and, for a probe, when traffic was seen to be
    refused where it must be and to pass where it must pass. `changed` lists what had to be repaired;
    `problems` lists what is wrong, one sentence each.
    """

    holds: bool
    layers: tuple[str, ...]
    changed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class StrayKind(StrEnum):
    """What can be left over of isolation."""

    PORT = "port"
    RULES = "rules"


@dataclass(frozen=True, slots=True)
class Stray:
    """A port of the sessions' bridge that leads to no container, or rules of this installation for no network of it.

    `name` is the interface's or the chain's; `reason` one sentence that says why nothing explains it.
    """

    kind: StrayKind
    name: str
    reason: str
