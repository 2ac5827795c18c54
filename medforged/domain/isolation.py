"""Owns what is known about east-west isolation at a moment."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["IsolationReport"]


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
