"""Owns simulated readiness: an IDE that answers at once, unless it is told not to."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

from medforged.domain.errors import NotReady

__all__ = ["SimulatedReadiness"]


class SimulatedReadiness:
    """ReadinessProbe whose port answers after `latency_seconds`; a timeout that is shorter is honoured at once."""

    def __init__(self, *, latency_seconds: float = 0.0) -> None:
        self._latency_seconds = latency_seconds
        self._silent: set[IPv4Address] = set()
        self._failures = 0

    async def wait(self, address: IPv4Address, port: int, timeout_seconds: float) -> None:
        await asyncio.sleep(min(self._latency_seconds, timeout_seconds))
        failed = self._failures > 0
        self._failures -= failed
        if failed or address in self._silent or self._latency_seconds > timeout_seconds:
            raise NotReady(
                f"cannot reach the IDE at {address}:{port}: no HTTP answer within {timeout_seconds:g} s (simulated)"
            )

    def fail(self, times: int = 1) -> None:
        """Let the next waits end without an answer."""
        self._failures += times

    def silence(self, address: IPv4Address) -> None:
        """Let nothing answer at this address until `answer`."""
        self._silent.add(address)

    def answer(self, address: IPv4Address) -> None:
        """End the silence of an address."""
        self._silent.discard(address)
