"""Owns simulated isolation: no packet is filtered, and it behaves as if every packet were."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

from msgspec.structs import replace

from medforged.adapters.simulated.host import SimulatedHost, Watch
from medforged.adapters.simulated.items import IsolationItem, PartItem, StrayItem
from medforged.domain.adapters import AdapterDescription
from medforged.domain.containers import SessionNetwork
from medforged.domain.errors import IsolationError
from medforged.domain.isolation import IsolationReport, Stray, StrayKind

__all__ = ["SimulatedIsolation"]

_LAYERS = ("simulated",)
_ITEM = "isolation"
_DOING = {"strays": "look for what is left of isolation", "remove_stray": "remove what is left of isolation"}


class SimulatedIsolation:
    """Isolation over networks that may exist nowhere. Each call takes `latency_seconds`.

    It holds for a network as for a real one: not before `ensure`, and for each endpoint from the `ensure` on that
    has seen it. What is in place is the `host`'s, by default one of its own, and stays there when the process ends.
    """

    def __init__(self, *, latency_seconds: float = 0.0, host: SimulatedHost | None = None) -> None:
        self._latency_seconds = latency_seconds
        self._host = host or SimulatedHost()
        self._watch = Watch(self._host.isolation, self._host.filter)

    def describe(self) -> AdapterDescription:
        return AdapterDescription("isolation", "simulated", real=False, reason="packets are not filtered: a simulation")

    async def ensure(self, network: SessionNetwork, proxy: IPv4Address) -> IsolationReport:
        await self._enter("ensure", network.name)
        attached = _sessions(network, proxy)
        with self._host.isolation.exclusive():
            found = self._found(network.name)
            changed = [] if found.covered is not None else [f"rules of {network.name} made"]
            changed += [f"port of {name} isolated" for name in sorted(attached - set(found.covered or ()))]
            covered = tuple(sorted(attached))
            if covered != found.covered:
                self._host.isolation.put(network.name, replace(found, covered=covered), tell=False)
        return IsolationReport(True, _LAYERS, tuple(changed))

    async def verify(self, network: SessionNetwork, proxy: IPv4Address) -> IsolationReport:
        await self._enter("verify", network.name)
        covered = self._found(network.name).covered
        problems = list(self._filter().leaks)
        if covered is None:
            problems.append(f"sessions on {network.name} reach each other: nothing keeps them apart")
        else:
            problems += [f"port of {name} is not isolated" for name in sorted(_sessions(network, proxy) - set(covered))]
        return IsolationReport(not problems, _LAYERS, (), tuple(problems))

    async def changed(self, timeout_seconds: float) -> bool:
        return await self._watch.wait(timeout_seconds)

    async def strays(self, network: SessionNetwork, proxy: IPv4Address) -> tuple[Stray, ...]:  # noqa: ARG002 - the port's
        await self._enter("strays", network.name)
        left = (stray for stray in self._found(network.name).strays if not _explained(stray, network))
        return tuple(Stray(stray.kind, stray.name, stray.reason) for stray in sorted(left, key=lambda one: one.name))

    async def remove_stray(self, network: SessionNetwork, proxy: IPv4Address, stray: Stray) -> None:  # noqa: ARG002 - the port's
        await self._enter("remove_stray", network.name)
        with self._host.isolation.exclusive():
            found = self._found(network.name)
            kept = tuple(
                one
                for one in found.strays
                if (one.kind, one.name) != (stray.kind, stray.name) or _explained(one, network)
            )
            if kept != found.strays:
                self._host.isolation.put(network.name, replace(found, strays=kept), tell=False)

    async def remove(self, network: SessionNetwork) -> None:
        await self._enter("remove", network.name)
        with self._host.isolation.exclusive():
            found = self._found(network.name)
            if found.strays:
                self._host.isolation.put(network.name, replace(found, covered=None), tell=False)
            else:
                self._host.isolation.remove(network.name, tell=False)

    async def close(self) -> None:
        self._watch.close()

    # What a test or a demonstration does to it.

    def fail(self, reason: str) -> None:
        """Let every call raise IsolationError until `restore`."""
        self._host.filter.put(_ITEM, replace(self._filter(), failure=reason))

    def leak(self, problem: str) -> None:
        """Let probes find this wrong, whatever `ensure` does, until `restore`."""
        part = self._filter()
        self._host.filter.put(_ITEM, replace(part, leaks=(*part.leaks, problem)))

    def lose(self, network: str) -> None:
        """Let a network's rules and ports be gone, as after a flush; the next `ensure` makes them anew."""
        with self._host.isolation.exclusive():
            self._host.isolation.put(network, replace(self._found(network), covered=None))

    def add_stray(self, network: str, stray: Stray) -> None:
        """Let something be left over. A port that is called as a container is explained while that is attached."""
        item = StrayItem(kind=stray.kind, name=stray.name, reason=stray.reason)
        with self._host.isolation.exclusive():
            found = self._found(network)
            self._host.isolation.put(network, replace(found, strays=(*found.strays, item)))

    def restore(self) -> None:
        """End what `fail` and `leak` began."""
        self._host.filter.put(_ITEM, PartItem())

    async def _enter(self, operation: str, network: str) -> None:
        """Every call of the port that waits begins here."""
        # Also without a delay: a real adapter always lets others run here, and defects hide behind one that does not.
        await asyncio.sleep(self._latency_seconds)
        failure = self._filter().failure
        if failure is not None:
            doing = _DOING.get(operation, f"{operation} isolation")
            raise IsolationError(f"cannot {doing} of {network}: {failure} (simulated)")

    def _found(self, network: str) -> IsolationItem:
        return self._host.isolation.get(network) or IsolationItem(network=network)

    def _filter(self) -> PartItem:
        return self._host.filter.get(_ITEM) or PartItem()


def _sessions(network: SessionNetwork, proxy: IPv4Address) -> frozenset[str]:
    return frozenset(endpoint.container_name for endpoint in network.endpoints if endpoint.address != proxy)


def _explained(stray: StrayItem, network: SessionNetwork) -> bool:
    return stray.kind is StrayKind.PORT and stray.name in {endpoint.container_name for endpoint in network.endpoints}
