"""Owns what a probe stands on: two network namespaces on the sessions' bridge, and the sockets at all three ends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address

from medforged.adapters.bridge.links import Port, opened
from medforged.adapters.bridge.namespaces import inside, new_namespace
from medforged.adapters.isolation.frames import LOCAL_EXPERIMENT, UNSPECIFIED, Station, Workshop
from medforged.adapters.isolation.wire import Tap, device_socket
from medforged.domain.containers import SessionNetwork
from medforged.domain.errors import IsolationError

__all__ = ["Bench", "ProbePlace", "pinned", "probe_place"]

_FORWARDING_SECONDS = 1.0
# Counted from the network's own address: fixed addresses, of which containers of sessions get none.
_KEPT = range(4, 16)
_PAUSE_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class ProbePlace:
    """Where a probe stands: interface names that nothing else uses, and addresses that no container gets.

    The MAC addresses are the same every time, so that what a neighbour remembers of the last probe still holds.
    """

    near_port: str
    far_port: str
    near: Station
    far: Station

    @property
    def ports(self) -> tuple[str, str]:
        return self.near_port, self.far_port


def probe_place(instance: str, network: SessionNetwork, proxy: IPv4Address) -> ProbePlace:
    """The first two free addresses that sessions never get. Raises IsolationError when there are none."""
    taken = {proxy, network.gateway, *(endpoint.address for endpoint in network.endpoints)}
    free = [number for number in _KEPT if network.subnet.network_address + number not in taken]
    if len(free) < 2:
        first, last = (network.subnet.network_address + number for number in (_KEPT[0], _KEPT[-1]))
        raise IsolationError(
            f"cannot probe {network.name}: containers have all of {first} to {last}; recreate the network with a "
            "dynamic range that leaves some out"
        )
    tag = hashlib.sha256(f"{instance}\n{network.name}".encode()).digest()[:3]
    near, far = (
        # Locally administered (the second bit), and nothing that a container engine hands out.
        Station.of(f"02:6d:{number:02x}:{tag.hex(':')}", network.subnet.network_address + number)
        for number in free[:2]
    )
    return ProbePlace(f"mfp{tag.hex()}n", f"mfp{tag.hex()}f", near, far)


class Bench:
    """The near station sends, the far one stands for a session, the host listens on its own address of the bridge.

    Everything is closed by the stack it is given, in the reverse order. The namespaces have no name, so a process
    that is killed takes them, and with them both ends of each veth pair, along.
    """

    def __init__(self, stack: ExitStack, network: SessionNetwork, place: ProbePlace) -> None:
        self._bridge_name = network.bridge
        self._place = place
        near = stack.enter_context(new_namespace())
        far = stack.enter_context(new_namespace())
        stack.callback(_delete_ports, place)
        ends = ((place.near_port, place.near, near), (place.far_port, place.far, far))
        with opened() as links:
            bridge = links.bridge(network.bridge)
            for name, station, namespace in ends:
                links.delete(name)  # of a probe that was killed before its namespaces were gone
                links.attach_namespace(name, bridge, namespace, station.mac)
            link_local = links.link_local(bridge)
        for _, station, namespace in ends:
            _configure(namespace, IPv4Interface((station.ipv4, network.subnet.prefixlen)))
        self._ports = self._forwarding_ports()

        self.make = Workshop(place.near, os.urandom(8))
        self.far = place.far
        self.host = Station(bridge.address, network.gateway, IPv6Address(link_local) if link_local else UNSPECIFIED)
        self.near_tap = stack.enter_context(closing(inside(near, lambda: Tap("eth0"))))
        self.far_tap = stack.enter_context(closing(inside(far, lambda: Tap("eth0"))))
        self.host_tap = stack.enter_context(closing(Tap(bridge.name, LOCAL_EXPERIMENT)))
        self.far_udp = stack.enter_context(inside(far, lambda: device_socket(socket.AF_INET, "eth0")))
        self.far_tcp = stack.enter_context(inside(far, lambda: socket.create_server((str(place.far.ipv4), 0))))
        self.host_udp = stack.enter_context(device_socket(socket.AF_INET, bridge.name))
        self.host_udp6 = stack.enter_context(device_socket(socket.AF_INET6, bridge.name))
        self.host_tcp = stack.enter_context(socket.create_server((str(network.gateway), 0)))

    def isolate(self, *, near: bool, far: bool) -> None:
        """Set the flags of the two ports; frames sent afterwards meet them."""
        with opened() as links:
            for port, flag in zip(self._ports, (near, far), strict=True):
                links.isolate(port, isolated=flag)

    def _forwarding_ports(self) -> tuple[Port, Port]:
        deadline = time.monotonic() + _FORWARDING_SECONDS
        while True:
            with opened() as links:
                ports = {port.name: port for port in links.bridge(self._bridge_name).ports}
            near, far = ports.get(self._place.near_port), ports.get(self._place.far_port)
            if near is not None and far is not None and near.forwarding and far.forwarding:
                return near, far
            if time.monotonic() > deadline:
                raise IsolationError(
                    f"cannot probe {self._bridge_name}: new ports of it do not forward within "
                    f"{_FORWARDING_SECONDS:g} s; is spanning tree on?"
                )
            time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Keep the calling thread on one processor: each processor has a queue of arriving frames of its own, so frames
    sent from two of them may overtake each other."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _configure(namespace: int, address: IPv4Interface) -> None:
    def configure() -> None:
        with opened() as links:
            links.configure(address)

    inside(namespace, configure)


def _delete_ports(place: ProbePlace) -> None:
    with opened() as links:
        for name in place.ports:
            links.delete(name)
