"""Owns the live probe: which frames are sent on the sessions' bridge, and what it means that they arrive or do not.

Nothing is concluded from silence alone. Frames keep their order on a bridge, so when one that must arrive has
arrived, whatever was sent before it and is not there has been dropped. What a layer must stop is sent where that
layer alone stands in the way, and beside it something that this layer must let through. When that does not arrive,
or the host itself cannot reach the far station, the probe is void, and isolation counts as not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address

from medforged.adapters.bridge.namespaces import as_user
from medforged.adapters.isolation.bench import Bench, ProbePlace, pinned
from medforged.adapters.isolation.frames import UNSPECIFIED, Frame, Workshop, broadcast_stations, multicast_station
from medforged.adapters.isolation.wire import connects, datagrams
from medforged.domain.containers import IDE_PORT, SessionNetwork
from medforged.domain.errors import IsolationError

__all__ = ["Probe"]

_ARRIVAL_SECONDS = 0.5  # for what must arrive; it takes microseconds
_ANSWER_SECONDS = 0.06  # for the host's answers that must not come; they take microseconds too
_NOBODY = 65534  # the overflow user: on every system, owner of nothing
_ANSWERS = {"TCP": 6, "ICMP": 1}
# Protocols beside TCP, UDP and ICMP, by their IANA numbers.
_OTHER_PROTOCOLS = {"IGMP": 2, "IP in IP": 4, "GRE": 47, "ESP": 50, "SCTP": 132, "IP protocol 253": 253}


class Probe:
    """One run. Blocking; leaves nothing behind. `cancelled` is asked between steps."""

    def __init__(
        self, network: SessionNetwork, proxy: IPv4Address, place: ProbePlace, cancelled: Callable[[], bool]
    ) -> None:
        self._network = network
        self._proxy = proxy
        self._place = place
        self._cancelled = cancelled

    def run(self) -> tuple[str, ...]:
        """Say what is wrong: nothing when isolation was seen to hold. Raises IsolationError when it cannot run."""
        try:
            with pinned(), ExitStack() as stack:
                bench = self._bench(stack)
                return tuple(problem for step in self._steps() for problem in step(bench))
        except OSError as error:
            raise IsolationError(f"cannot probe {self._network.name}: {error}; run as root") from error

    def _bench(self, stack: ExitStack) -> Bench:
        return Bench(stack, self._network, self._place)

    def _steps(self) -> Iterator[Callable[[Bench], Sequence[str]]]:
        steps = (self._session_to_host, self._session_to_session, self._host_to_session, self._port_to_port)
        for step in steps:
            if self._cancelled():
                raise IsolationError(f"cannot probe {self._network.name}: cancelled")
            yield step

    def _session_to_host(self, bench: Bench) -> Sequence[str]:
        port4, port6 = bench.host_udp.getsockname()[1], bench.host_udp6.getsockname()[1]
        frames = _to_host(bench, self._network, port4, port6)
        marker = bench.make.raw("a frame to the host", bench.host)
        syn = bench.make.tcp("TCP", bench.host, bench.host_tcp.getsockname()[1])
        bench.near_tap.send(*frames, syn, bench.make.ping("ICMP", bench.host), marker)
        problems = []
        if not bench.host_tap.wait_for(marker, _ARRIVAL_SECONDS):
            problems.append("the probe is void: a frame from a port to the host did not arrive")
        heard = (*datagrams(bench.host_udp, 0), *datagrams(bench.host_udp6, 0))
        leaked = [frame.label for frame in frames if frame.token in heard]
        leaked += bench.near_tap.answers(self._network.gateway, _ANSWERS, _ANSWER_SECONDS)
        if leaked:
            problems.append(f"iptables does not keep sessions from the host: {', '.join(leaked)} reached it")
        return problems

    def _session_to_session(self, bench: Bench) -> Sequence[str]:
        """Both ports are open as yet, so that only iptables stands between them."""
        frames = _east_west(bench.make, bench, self._network)
        marker = bench.make.raw("a frame of no protocol", bench.far)
        far_port = bench.far_udp.getsockname()[1]
        proxied = bench.make.udp("UDP from the proxy's address", bench.far, far_port, self._proxy)
        bench.near_tap.send(*frames, marker, proxied)
        problems = []
        if not bench.far_tap.wait_for(marker, _ARRIVAL_SECONDS):
            problems.append("the probe is void: a frame between two open ports of the bridge did not arrive")
        if proxied.token not in datagrams(bench.far_udp, _ARRIVAL_SECONDS):
            problems.append(
                f"the proxy cannot reach sessions: UDP from {self._proxy} did not arrive; look for a foreign rule in "
                "FORWARD (iptables-save, iptables-legacy-save, nft list ruleset)"
            )
        leaked = bench.far_tap.arrived(frames)
        if leaked:
            problems.append(f"iptables does not keep sessions apart: {', '.join(leaked)} passed from port to port")
        return problems

    def _host_to_session(self, bench: Bench) -> Sequence[str]:
        address, port = self._place.far.ipv4, bench.far_tcp.getsockname()[1]
        refused = connects(address, port, _ARRIVAL_SECONDS)
        if refused is not None:
            return [f"the probe is void: root on this host cannot connect to it ({refused})"]
        if as_user(_NOBODY, lambda: connects(address, port, _ARRIVAL_SECONDS)) is None:
            return ["iptables does not keep other users of this host from sessions: TCP connected"]
        return []

    def _port_to_port(self, bench: Bench) -> Sequence[str]:
        """Both ports isolated, for frames that iptables lets through; then the near one open, as the proxy's is."""
        make, far = bench.make, bench.far
        frames = (
            make.raw("a frame of no protocol", far),
            make.arp("ARP", far),
            make.vlan("UDP behind a VLAN tag", far),
            make.udp("UDP under the proxy's address", far, bench.far_udp.getsockname()[1], self._proxy),
        )
        passed = make.raw("a frame to the host", bench.host)
        bench.isolate(near=True, far=True)
        bench.near_tap.send(*frames, passed)
        problems = []
        # Not before the last frame has left the queue may the port be opened again.
        if not bench.host_tap.wait_for(passed, _ARRIVAL_SECONDS):
            problems.append("the probe is void: a frame from an isolated port to the host did not arrive")
        bench.isolate(near=False, far=True)
        marker = make.raw("a frame to an isolated port", far)
        bench.near_tap.send(marker)
        if not bench.far_tap.wait_for(marker, _ARRIVAL_SECONDS):
            problems.append("the probe is void: a frame from an open port to an isolated one did not arrive")
        leaked = bench.far_tap.arrived(frames)
        if leaked:
            problems.append(f"isolated ports of the bridge are not apart: {', '.join(leaked)} passed between them")
        return problems


def _to_host(bench: Bench, network: SessionNetwork, port4: int, port6: int) -> list[Frame]:
    make, host = bench.make, bench.host
    network_broadcast, any_broadcast = broadcast_stations(network.subnet)
    frames = [
        make.udp("UDP", host, port4),
        make.udp("UDP to the network's broadcast address", network_broadcast, port4),
        make.udp("UDP broadcast", any_broadcast, port4),
        make.udp("UDP multicast", multicast_station(IPv4Address("224.0.0.1")), port4),
        make.udp6("IPv6 UDP multicast", multicast_station(IPv6Address("ff02::1")), port6),
    ]
    if host.ipv6 != UNSPECIFIED:
        frames.append(make.udp6("IPv6 UDP", host, port6))
    return frames


def _east_west(make: Workshop, bench: Bench, network: SessionNetwork) -> list[Frame]:
    far = bench.far
    network_broadcast, any_broadcast = broadcast_stations(network.subnet)
    return [
        make.tcp(f"TCP to port {IDE_PORT}", far, IDE_PORT),
        make.tcp("TCP to port 22", far, 22),
        make.udp(f"UDP to port {IDE_PORT}", far, IDE_PORT),
        make.udp("UDP to port 53", far, 53),
        make.ping("ICMP", far),
        *(make.protocol(label, far, number) for label, number in _OTHER_PROTOCOLS.items()),
        make.udp("UDP to the network's broadcast address", network_broadcast, IDE_PORT),
        make.udp("UDP broadcast", any_broadcast, IDE_PORT),
        make.udp("UDP multicast", multicast_station(IPv4Address("224.0.0.251")), 5353),
        make.tcp6(f"IPv6 TCP to port {IDE_PORT}", far, IDE_PORT),
        make.udp6(f"IPv6 UDP to port {IDE_PORT}", far, IDE_PORT),
        make.ping6("ICMPv6", far),
        make.udp6("IPv6 UDP multicast", multicast_station(IPv6Address("ff02::1")), IDE_PORT),
    ]
