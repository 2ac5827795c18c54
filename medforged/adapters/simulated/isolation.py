"""Owns simulated isolation: no packet is filtered, and it behaves as if every packet were."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

from medforged.domain.adapters import AdapterDescription
from medforged.domain.containers import SessionNetwork
from medforged.domain.errors import IsolationError
from medforged.domain.isolation import IsolationReport

__all__ = ["SimulatedIsolation"]

_LAYERS = ("simulated",)


class SimulatedIsolation:
    """Isolation over networks that may exist nowhere. Each call takes `latency_seconds`.

    It holds for a network as for a real one: not before `ensure`, and for each endpoint from the `ensure` on that
    has seen it.
    """

    def __init__(self, *, latency_seconds: float = 0.0) -> None:
        self._latency_seconds = latency_seconds
        self._covered: dict[str, frozenset[str]] = {}
        self._failure: str | None = None
        self._leaks: tuple[str, ...] = ()

    def describe(self) -> AdapterDescription:
        return AdapterDescription("isolation", "simulated", real=False, reason="packets are not filtered: a simulation")

    async def ensure(self, network: SessionNetwork, proxy: IPv4Address) -> IsolationReport:
        await self._enter("ensure", network.name)
        attached = _sessions(network, proxy)
        covered = self._covered.get(network.name)
        changed = [] if covered is not None else [f"rules of {network.name} made"]
        changed += [f"port of {name} isolated" for name in sorted(attached - (covered or frozenset()))]
        self._covered[network.name] = attached
        return IsolationReport(True, _LAYERS, tuple(changed))

    async def verify(self, network: SessionNetwork, proxy: IPv4Address) -> IsolationReport:
        await self._enter("verify", network.name)
        covered = self._covered.get(network.name)
        problems = list(self._leaks)
        if covered is None:
            problems.append(f"sessions on {network.name} reach each other: nothing keeps them apart")
        else:
            problems += [f"port of {name} is not isolated" for name in sorted(_sessions(network, proxy) - covered)]
        return IsolationReport(not problems, _LAYERS, (), tuple(problems))

    async def remove(self, network: SessionNetwork) -> None:
        await self._enter("remove", network.name)
        self._covered.pop(network.name, None)

    async def close(self) -> None:
        """Nothing is held."""

    # What a test or a demonstration does to it.

    def fail(self, reason: str) -> None:
        """Let every call raise IsolationError until `restore`."""
        self._failure = reason

    def leak(self, problem: str) -> None:
        """Let probes find this wrong, whatever `ensure` does, until `restore`."""
        self._leaks = (*self._leaks, problem)

    def lose(self, network: str) -> None:
        """Let a network's rules and ports be gone, as after a flush; the next `ensure` makes them anew."""
        self._covered.pop(network, None)

    def restore(self) -> None:
        """End what `fail` and `leak` began."""
        self._failure, self._leaks = None, ()

    async def _enter(self, operation: str, network: str) -> None:
        """Every call of the port that waits begins here."""
        # Also without a delay: a real adapter always lets others run here, and defects hide behind one that does not.
        await asyncio.sleep(self._latency_seconds)
        if self._failure is not None:
            raise IsolationError(f"cannot {operation} isolation of {network}: {self._failure} (simulated)")


def _sessions(network: SessionNetwork, proxy: IPv4Address) -> frozenset[str]:
    return frozenset(endpoint.container_name for endpoint in network.endpoints if endpoint.address != proxy)
