"""Owns the fake of the `readiness` port: it remembers who was waited for, and answers when the test says so."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

from medforged.domain.errors import NotReady


class FakeReadiness:
    """ReadinessProbe whose state is its attributes. While `answering` is cleared, waits wait; no time passes here:
    `give_up` ends them as their timeout would."""

    def __init__(self) -> None:
        self.waits: list[tuple[IPv4Address, int, float]] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self._given_up = asyncio.Event()

    async def wait(self, address: IPv4Address, port: int, timeout_seconds: float) -> None:
        self.waits.append((address, port, timeout_seconds))
        done = [asyncio.ensure_future(event.wait()) for event in (self.answering, self._given_up)]
        try:
            await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in done:
                future.cancel()
        if not self.answering.is_set():
            raise NotReady(f"cannot reach the IDE at {address}:{port}: no HTTP answer within {timeout_seconds:g} s")

    def give_up(self) -> None:
        """From now on, whoever is not answered has waited long enough."""
        self._given_up.set()
