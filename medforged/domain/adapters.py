"""Owns the description that every adapter gives of itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AdapterDescription"]


@dataclass(frozen=True, slots=True)
class AdapterDescription:
    """Which adapter serves a port and why it was chosen, as `medforgectl status` shows it.

    `real` is false for simulated adapters, so that nobody takes a simulation for the host.
    """

    port: str
    adapter: str
    real: bool
    reason: str
