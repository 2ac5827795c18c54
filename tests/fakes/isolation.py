"""Owns the fake of the `isolation` port: the simulated one, with a journal of calls and calls that can be held."""

from __future__ import annotations

import asyncio

from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.domain.adapters import AdapterDescription


class FakeIsolation(SimulatedIsolation):
    """Isolation for tests of what uses it.

    `journal` has every call in its order, as "<method> <network>". `hold("verify")` lets calls of that method wait
    before they have any effect, until `release("verify")`; `arrived("verify")` waits for one to be held.
    """

    def __init__(self) -> None:
        super().__init__()
        self.journal: list[str] = []
        self._held: dict[str, asyncio.Event] = {}
        self._arrivals: dict[str, asyncio.Event] = {}

    def describe(self) -> AdapterDescription:
        return AdapterDescription("isolation", "fake", real=False, reason="a test runs")

    def hold(self, operation: str) -> None:
        self._held[operation] = asyncio.Event()
        self._arrivals[operation] = asyncio.Event()

    def release(self, operation: str) -> None:
        self._held.pop(operation).set()

    async def arrived(self, operation: str) -> None:
        await self._arrivals[operation].wait()

    async def _enter(self, operation: str, network: str) -> None:
        self.journal.append(f"{operation} {network}")
        held = self._held.get(operation)
        if held is not None:
            self._arrivals[operation].set()
            await held.wait()
        await super()._enter(operation, network)
