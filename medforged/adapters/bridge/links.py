"""Owns netlink: the host's interfaces as values, and the few changes that isolation makes to them.

Written for pyroute2 0.7.7 to 0.9, whose synchronous IPRoute has the same calls. From 0.9 on it carries an event
loop of its own, so it is opened, used and closed within one thread; that costs half a millisecond.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Any

from medforged.domain.errors import IsolationError

__all__ = ["Bridge", "Links", "Port", "opened"]

_NO_SUCH_PROCESS = 3
_NO_SUCH_DEVICE = 19
_AF_INET6 = 10
_DUMP_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR, linux/netlink.h
_DUMP_ATTEMPTS = 20
_FORWARDING = 3  # BR_STATE_FORWARDING, linux/if_bridge.h
_UNKNOWN_NAMESPACE = 0xFFFFFFFF  # NETNSA_NSID_NOT_ASSIGNED as 0.9 reads it; -1 as the kernel means it


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a bridge. `namespace` is this host's id of the network namespace its other end lives in.

    `kind` is the driver's word, such as "veth"; None for a physical interface.
    """

    index: int
    name: str
    isolated: bool
    forwarding: bool
    namespace: int | None
    kind: str | None


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge, its ports, and the names of the host's other bridges. `address` is its MAC address."""

    index: int
    name: str
    address: str
    mtu: int
    ports: tuple[Port, ...]
    others: tuple[str, ...]


class Links:
    """What one open netlink socket can be asked. Made by `opened`."""

    def __init__(self, route: Any, refused: type[Exception]) -> None:
        self._route = route
        self._refused = refused

    def bridge(self, name: str) -> Bridge:
        """The bridge of this name. Raises IsolationError when there is none."""
        found = self.find_bridge(name)
        if found is None:
            raise IsolationError(f"cannot isolate ports: there is no bridge {name}; recreate the sessions' network")
        return found

    def find_bridge(self, name: str) -> Bridge | None:
        """One dump of all links."""
        links = self._dump(lambda: self._route.link("dump"))
        bridges = {link.get_attr("IFLA_IFNAME"): link for link in links if _kind(link) == "bridge"}
        if name not in bridges:
            return None
        bridge = bridges.pop(name)
        return Bridge(
            bridge["index"],
            name,
            bridge.get_attr("IFLA_ADDRESS"),
            bridge.get_attr("IFLA_MTU"),
            tuple(_port(link) for link in links if link.get_attr("IFLA_MASTER") == bridge["index"]),
            tuple(sorted(bridges)),
        )

    def namespace_of(self, process_id: int) -> int | None:
        """This host's id of the network namespace that a process is in; None for a process that is gone."""
        try:
            answer = self._route.get_netnsid(pid=process_id)
        except self._refused as error:
            if getattr(error, "code", None) == _NO_SUCH_PROCESS:
                return None
            raise
        number = answer["nsid"]
        return None if number in (_UNKNOWN_NAMESPACE, -1) else number

    def isolate(self, port: Port, *, isolated: bool) -> bool:
        """Set a port's flag. False when the port is gone meanwhile, with its container."""
        try:
            self._route.brport("set", index=port.index, isolated=int(isolated))
        except self._refused as error:
            if getattr(error, "code", None) == _NO_SUCH_DEVICE:
                return False
            raise
        return True

    def detach(self, port: Port) -> None:
        """Remove a veth pair; what is of another kind is somebody's own, and only leaves the bridge. Gone: no error."""
        try:
            if port.kind == "veth":
                self._route.link("del", index=port.index)
            else:
                self._route.link("set", index=port.index, master=0)
        except self._refused as error:
            if getattr(error, "code", None) != _NO_SUCH_DEVICE:
                raise

    def attach_namespace(self, name: str, bridge: Bridge, namespace: int, mac: str) -> None:
        """Connect a namespace, given as a file descriptor, to the bridge: a veth pair, `eth0` at its far end.

        The far end is made where it belongs, so both ends go when the namespace does, also after a crash. The pair
        has the bridge's MTU: a bridge takes on the smallest MTU of its ports.
        """
        far = {"ifname": "eth0", "net_ns_fd": namespace, "address": mac, "mtu": bridge.mtu}
        self._route.link("add", ifname=name, kind="veth", mtu=bridge.mtu, peer=far)
        index = self._route.link_lookup(ifname=name)[0]
        self._route.link("set", index=index, master=bridge.index, state="up")

    def configure(self, address: IPv4Interface) -> None:
        """Give `eth0` of the namespace that this socket was opened in an address, and bring it up."""
        (index,) = self._route.link_lookup(ifname="eth0")
        self._route.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
        self._route.link("set", index=index, state="up")

    def delete(self, name: str) -> None:
        """Remove an interface. Absent: no error."""
        for index in self._route.link_lookup(ifname=name):
            with contextlib.suppress(self._refused):  # its other end may take it away at this moment
                self._route.link("del", index=index)

    def link_local(self, bridge: Bridge) -> str | None:
        """The bridge's IPv6 link-local address, if it has one."""
        for entry in self._dump(lambda: self._route.get_addr(family=_AF_INET6, index=bridge.index)):
            address: str = entry.get_attr("IFA_ADDRESS")
            if address.startswith("fe80:"):
                return address
        return None

    def _dump(self, ask: Callable[[], Iterable[Any]]) -> tuple[Any, ...]:
        """All answers, from one state of the kernel. It marks a list that has changed while it was read out, which can
        lack entries; pyroute2 0.7 raises on that mark, 0.9 passes it over."""
        for _ in range(_DUMP_ATTEMPTS):
            try:
                answers = tuple(ask())
            except self._refused as error:
                if "dump interrupted" not in str(error):
                    raise
            else:
                if not any(answer["header"]["flags"] & _DUMP_INTERRUPTED for answer in answers):
                    return answers
        raise IsolationError(
            "cannot list the host's interfaces: they change all the time; see what makes and removes them"
        )


@contextlib.contextmanager
def opened() -> Iterator[Links]:
    """A netlink socket in the calling thread's network namespace. Blocking. Raises IsolationError."""
    try:
        from pyroute2 import IPRoute, NetlinkError
    except ImportError as error:
        raise IsolationError(f"cannot load pyroute2: {error}; install it (0.7.7 or later)") from error
    try:
        with IPRoute() as route:
            yield Links(route, NetlinkError)
    except (NetlinkError, OSError) as error:
        raise IsolationError(f"cannot use netlink: {error}; run as root") from error


def _kind(link: Any) -> str | None:
    info = link.get_attr("IFLA_LINKINFO")
    kind: str | None = info.get_attr("IFLA_INFO_KIND") if info else None
    return kind


def _port(link: Any) -> Port:
    state = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
    return Port(
        link["index"],
        link.get_attr("IFLA_IFNAME"),
        bool(state.get_attr("IFLA_BRPORT_ISOLATED")),
        state.get_attr("IFLA_BRPORT_STATE") == _FORWARDING,
        link.get_attr("IFLA_LINK_NETNSID"),
        _kind(link),
    )
