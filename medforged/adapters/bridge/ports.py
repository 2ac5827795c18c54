"""Owns the bridge layer: every port of the sessions' bridge is isolated except the proxy's.

The kernel passes no frame between two isolated ports, of any protocol, whatever addresses it carries; a port that
is not isolated, and the host itself, reach both (ip-link(8), bridge_slave isolated).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from medforged.adapters.bridge.addresses import holds_address
from medforged.adapters.bridge.links import Bridge, Port, opened
from medforged.adapters.bridge.strays import StrayPorts
from medforged.domain.containers import SessionNetwork

__all__ = ["PortIsolation", "PortReport", "decide"]

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class PortReport:
    """What was done, what is wrong, and the host's other bridges, which the same look at the links has shown."""

    changed: tuple[str, ...]
    problems: tuple[str, ...]
    other_bridges: tuple[str, ...]


def decide(
    ports: Sequence[Port], proxies: Collection[int], exempt: Collection[str] = ()
) -> tuple[tuple[Port, bool], ...]:
    """Which ports' flags have to change, and to what. Whatever is not known to be the proxy's is isolated."""
    wanted = ((port, port.namespace is None or port.namespace not in proxies) for port in ports)
    return tuple((port, flag) for port, flag in wanted if port.isolated != flag and port.name not in exempt)


class PortIsolation:
    """Blocking; every call opens a netlink socket of its own. Raises IsolationError."""

    def __init__(self, strays: StrayPorts | None = None, proc: Path = _PROC) -> None:
        self._strays = strays or StrayPorts()
        self._proc = proc

    def ensure(self, network: SessionNetwork, proxy: IPv4Address, exempt: Collection[str] = ()) -> PortReport:
        """Set what has to be set. `exempt` are ports of a probe that sets its own."""
        with opened() as links:
            bridge = links.bridge(network.bridge)
            proxies, problems = self._proxies(links.namespace_of, network, proxy, bridge)
            changed = tuple(
                f"bridge: port {port.name} {'isolated' if flag else 'opened for the proxy'}"
                for port, flag in decide(bridge.ports, proxies, exempt)
                if links.isolate(port, isolated=flag)
            )
            self._strays.note(links, bridge, network, exempt)
            return PortReport(changed, problems, bridge.others)

    def missing(self, network: SessionNetwork, proxy: IPv4Address, exempt: Collection[str] = ()) -> tuple[str, ...]:
        """What `ensure` would change."""
        with opened() as links:
            bridge = links.bridge(network.bridge)
            proxies, _ = self._proxies(links.namespace_of, network, proxy, bridge)
            return tuple(
                f"bridge: port {port.name} is {'not isolated' if flag else 'isolated though it is the proxy'}"
                for port, flag in decide(bridge.ports, proxies, exempt)
            )

    def remove(self, network: SessionNetwork) -> None:
        """Give every port of the bridge its default back. No bridge: no error."""
        with opened() as links:
            bridge = links.find_bridge(network.bridge)
            for port in bridge.ports if bridge is not None else ():
                if port.isolated:
                    links.isolate(port, isolated=False)

    def _proxies(
        self, namespace_of: Callable[[int], int | None], network: SessionNetwork, proxy: IPv4Address, bridge: Bridge
    ) -> tuple[frozenset[int], tuple[str, ...]]:
        """The namespaces that are the proxy's, and what is wrong with an endpoint that claims to be it."""
        namespaces, problems = set(), []
        for endpoint in network.endpoints:
            if endpoint.address != proxy:
                continue
            namespace = namespace_of(endpoint.process_id)
            # A process id can have been given to another process since the engine was asked. The namespace that
            # holds the proxy's address is the proxy's: containers cannot set addresses.
            trusted = namespace is not None and holds_address(endpoint.process_id, proxy, self._proc)
            if namespace is not None and trusted and any(port.namespace == namespace for port in bridge.ports):
                namespaces.add(namespace)
            else:
                problems.append(
                    f"bridge: {endpoint.container_name} ({proxy}) has no port on {bridge.name}: the proxy reaches no "
                    "session until it has been restarted"
                )
        return frozenset(namespaces), tuple(problems)
