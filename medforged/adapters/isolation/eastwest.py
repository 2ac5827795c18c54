"""Owns isolation on a real host: two layers, each able to keep sessions apart alone, and the probe that proves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import TypeVar

from medforged.adapters.blocking import BlockingCalls, CallTimedOut
from medforged.adapters.bridge.changes import LinkChanges
from medforged.adapters.bridge.ports import PortIsolation
from medforged.adapters.bridge.strays import SETTLED_SECONDS, StrayPorts
from medforged.adapters.iptables.bridged import ensure_bridge_filtering
from medforged.adapters.iptables.firewall import Firewall
from medforged.adapters.iptables.rules import Scope
from medforged.adapters.isolation.bench import ProbePlace, probe_place
from medforged.adapters.isolation.probe import Probe
from medforged.domain.adapters import AdapterDescription
from medforged.domain.containers import SessionNetwork
from medforged.domain.errors import IsolationError
from medforged.domain.isolation import IsolationReport, Stray, StrayKind

__all__ = ["LAYERS", "EastWestIsolation"]

LAYERS = ("iptables", "bridge")
_TIMEOUT_SECONDS = 10.0
T = TypeVar("T")


class EastWestIsolation:
    """The Isolation of a Linux host. `instance` tells this installation's chains from another's on the same host.

    A port that no container explains is a stray once it has been seen like that for `settled_seconds`.
    """

    def __init__(
        self, instance: str, *, timeout_seconds: float = _TIMEOUT_SECONDS, settled_seconds: float = SETTLED_SECONDS
    ) -> None:
        self._instance = instance
        self._firewall = Firewall(instance)
        self._stray_ports = StrayPorts(settled_seconds)
        self._ports = PortIsolation(self._stray_ports)
        self._changes = LinkChanges()
        # None of the libraries is safe for two threads.
        self._iptables = BlockingCalls("iptables", limit=1, timeout_seconds=timeout_seconds)
        self._netlink = BlockingCalls("netlink", limit=1, timeout_seconds=timeout_seconds)
        self._probe = BlockingCalls("the isolation probe", limit=1, timeout_seconds=timeout_seconds)
        self._probing = asyncio.Lock()
        # Ports whose flags a running probe sets itself.
        self._exempt: frozenset[str] = frozenset()
        self._other_bridges: tuple[str, ...] = ()

    def describe(self) -> AdapterDescription:
        return AdapterDescription(
            "isolation", "iptables (legacy tables) and isolated bridge ports", True, "the layers of a Linux host"
        )

    async def ensure(self, network: SessionNetwork, proxy: IPv4Address) -> IsolationReport:
        """Both layers are attempted even when one fails; then it raises IsolationError that names every failure.

        `problems` of a report that holds speak of the proxy: an endpoint that has its address but no port.
        """
        changed: list[str] = []
        problems: list[str] = []
        failures = []
        for layer in (self._ensure_ports, self._ensure_firewall):
            try:
                await layer(network, proxy, changed, problems)
            except IsolationError as error:
                failures.append(str(error))
        if failures:
            raise IsolationError("; ".join(failures))
        return IsolationReport(True, LAYERS, tuple(changed), tuple(problems))

    async def verify(self, network: SessionNetwork, proxy: IPv4Address) -> IsolationReport:
        """Probe both layers with traffic and read the flags of the sessions' own ports, which no probe may disturb."""
        place = probe_place(self._instance, network, proxy)
        async with self._probing:
            self._exempt = frozenset(place.ports)
            try:
                with self._changes.own(network.bridge, place.ports):
                    problems = await self._run_probe(network, proxy, place)
            finally:
                self._exempt = frozenset()
            problems += await _within(self._netlink, lambda: self._ports.missing(network, proxy))
        return IsolationReport(not problems, LAYERS, (), problems)

    async def changed(self, timeout_seconds: float) -> bool:
        """For one caller at a time. True once for all that has changed by then, so whoever asserts after each True does
        well to wait a moment first: what starts a container makes dozens of changes.

        Flags that `ensure` sets are changes too, but an `ensure` that finds nothing to do makes none. Of rules the
        kernel tells nothing. The first call is True at once, as what came before it is not known.
        """
        return await self._changes.wait(timeout_seconds)

    async def strays(self, network: SessionNetwork, proxy: IPv4Address) -> tuple[Stray, ...]:  # noqa: ARG002 - the proxy is an endpoint, or has no port
        """Every `ensure` and every call of this looks at the ports; only those that have long led nowhere are told."""
        ports = await _within(self._netlink, lambda: self._stray_ports.find(network, self._exempt))
        rules = await _within(self._iptables, lambda: self._firewall.strays(network.name))
        return tuple(sorted((*ports, *rules), key=lambda stray: stray.name))

    async def remove_stray(self, network: SessionNetwork, proxy: IPv4Address, stray: Stray) -> None:  # noqa: ARG002 - as above
        """Of rules, all chains of the same former network go at once."""
        if stray.kind is StrayKind.PORT:
            await _within(self._netlink, lambda: self._stray_ports.remove(network, stray.name, self._exempt))
        else:
            await _within(self._iptables, lambda: self._firewall.remove_stray(network.name, stray.name))

    async def remove(self, network: SessionNetwork) -> None:
        await _within(self._iptables, lambda: self._firewall.remove(network.name))
        await _within(self._netlink, lambda: self._ports.remove(network))

    async def close(self) -> None:
        """Wait for a probe that is under way; nothing but the ear for changes is held between calls."""
        async with self._probing:
            self._changes.close()

    async def _run_probe(self, network: SessionNetwork, proxy: IPv4Address, place: ProbePlace) -> tuple[str, ...]:
        """A cancelled caller waits until the probe has removed what it made, which takes a step of it: mostly a moment,
        longer where the kernel is busy with other links, and at most what a whole probe may take."""
        cancelled = threading.Event()
        probe = Probe(network, proxy, place, cancelled.is_set)
        running = asyncio.ensure_future(_within(self._probe, probe.run))
        try:
            return await asyncio.shield(running)
        finally:
            cancelled.set()
            await asyncio.wait({running})

    async def _ensure_ports(
        self, network: SessionNetwork, proxy: IPv4Address, changed: list[str], problems: list[str]
    ) -> None:
        report = await _within(self._netlink, lambda: self._ports.ensure(network, proxy, self._exempt))
        self._other_bridges = report.other_bridges
        changed += report.changed
        problems += report.problems

    async def _ensure_firewall(
        self, network: SessionNetwork, proxy: IPv4Address, changed: list[str], _problems: list[str]
    ) -> None:
        # When the bridges could not be listed, the rules for those known before are worth having all the same.
        scope = Scope(network.name, network.bridge, network.subnet, proxy, self._other_bridges)
        changed += await _within(self._iptables, lambda: self._firewall.ensure(scope))
        changed += await ensure_bridge_filtering()


async def _within(calls: BlockingCalls, call: Callable[[], T]) -> T:
    try:
        return await calls.run(call)
    except CallTimedOut as error:
        raise IsolationError(f"cannot isolate sessions: {error}") from error
