"""Owns what the daemon needs to know that an IDE answers."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Protocol

__all__ = ["ReadinessProbe"]


class ReadinessProbe(Protocol):
    """Waits for the IDE's port."""

    async def wait(self, address: IPv4Address, port: int, timeout_seconds: float) -> None:
        """Return when the port answers HTTP. Raises NotReady after the timeout."""
        ...
