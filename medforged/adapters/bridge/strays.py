"""Owns which ports of the sessions' bridge lead to no container.

An engine makes a port before it moves the other end into the container, and takes the end back before it removes
the port. Between, nothing in the kernel tells such a port from one that was left behind; with a GPU, whose driver
may have to be set up first, this can last many seconds. So a port is a stray only after it has been seen without
a container for longer than any start takes, and each look at the bridge is remembered for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from medforged.adapters.bridge.links import Bridge, Links, Port, opened
from medforged.domain.containers import Endpoint, SessionNetwork
from medforged.domain.isolation import Stray, StrayKind

__all__ = ["SETTLED_SECONDS", "StrayPorts", "unexplained"]

SETTLED_SECONDS = 30.0
_PROC = Path("/proc")


def unexplained(ports: Iterable[Port], namespaces: Collection[int | None], exempt: Collection[str]) -> tuple[Port, ...]:
    """The ports that lead to none of these namespaces. One without any leads to this host itself."""
    return tuple(
        port
        for port in ports
        if port.name not in exempt and (port.namespace is None or port.namespace not in namespaces)
    )


class StrayPorts:
    """Remembers since when a port has been seen without a container. Blocking; one thread at a time."""

    def __init__(
        self,
        settled_seconds: float = SETTLED_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        proc: Path = _PROC,
    ) -> None:
        self._settled_seconds = settled_seconds
        self._monotonic = monotonic
        self._proc = proc
        # By the interface's number, which the kernel gives to no other before it has counted to two thousand million.
        self._since: dict[int, float] = {}
        # What `note` saw the last time, and the namespaces of those endpoints.
        self._picture: tuple[Sequence[Port], Sequence[Endpoint]] = (), ()
        self._known: frozenset[int | None] = frozenset()

    def note(self, links: Links, bridge: Bridge, network: SessionNetwork, exempt: Collection[str]) -> None:
        """Remember a look at the bridge that somebody else takes. The kernel is asked about endpoints only when they,
        or the ports, are others than the last time."""
        picture = bridge.ports, network.endpoints
        if picture != self._picture:
            self._picture, self._known = picture, _namespaces(links, network)
        self._remember(unexplained(bridge.ports, self._known, exempt))

    def find(self, network: SessionNetwork, exempt: Collection[str] = ()) -> tuple[Stray, ...]:
        """No bridge: none. `exempt` are ports of a probe that runs. Raises IsolationError."""
        with opened() as links:
            return tuple(Stray(StrayKind.PORT, port.name, _reason(port)) for port in self._look(links, network, exempt))

    def remove(self, network: SessionNetwork, name: str, exempt: Collection[str] = ()) -> None:
        """Remove this one, if it still is one. Raises IsolationError."""
        with opened() as links:
            for port in self._look(links, network, exempt):
                if port.name == name:
                    links.detach(port)

    def _look(self, links: Links, network: SessionNetwork, exempt: Collection[str]) -> Sequence[Port]:
        bridge = links.find_bridge(network.bridge)
        ports = unexplained(bridge.ports, _namespaces(links, network), exempt) if bridge is not None else ()
        if any(port.namespace is not None for port in ports):
            # The engine's answer can be older than the port. Wherever a process lives, somebody uses the port.
            alive = {links.namespace_of(process) for process in self._processes()}
            ports = unexplained(ports, alive, exempt)
        self._remember(ports)
        latest = self._monotonic() - self._settled_seconds
        return [port for port in ports if self._since[port.index] <= latest]

    def _remember(self, ports: Iterable[Port]) -> None:
        now = self._monotonic()
        self._since = {port.index: self._since.get(port.index, now) for port in ports}

    def _processes(self) -> Iterator[int]:
        """One of each network namespace, and whatever cannot be told."""
        seen: set[int] = set()
        for place in self._proc.iterdir():
            if not place.name.isdigit():
                continue
            try:
                namespace = (place / "ns" / "net").stat().st_ino
            except OSError:
                yield int(place.name)
                continue
            if namespace not in seen:
                seen.add(namespace)
                yield int(place.name)


def _namespaces(links: Links, network: SessionNetwork) -> frozenset[int | None]:
    return frozenset(links.namespace_of(endpoint.process_id) for endpoint in network.endpoints)


def _reason(port: Port) -> str:
    if port.namespace is not None:
        return "its other end is in a network namespace that no process is in"
    if port.kind == "veth":
        return "its other end is on this host, not in a container"
    return f"it leads to no container: it is {port.kind or 'a physical interface'}"
