"""Owns the Ethernet frames that a probe sends: pure, from addresses to bytes.

Every frame is well-formed down to its checksums, so that nothing but isolation has a reason to drop it, and ends in
a token by which a receiver knows it again.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

__all__ = ["LOCAL_EXPERIMENT", "UNSPECIFIED", "Frame", "Station", "Workshop", "broadcast_stations", "multicast_station"]

# An EtherType that IEEE 802 leaves for experiments: no packet filter looks at it.
LOCAL_EXPERIMENT = 0x88B5
_IPV4, _ARP, _VLAN, _IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD
_ICMP, _TCP, _UDP, _ICMPV6 = 1, 6, 17, 58
_SYN = 0x02
_SOURCE_PORT = 40961
UNSPECIFIED = IPv6Address(0)
_BROADCAST = "ff:ff:ff:ff:ff:ff"


@dataclass(frozen=True, slots=True)
class Station:
    """One end: its MAC address and its addresses."""

    mac: str
    ipv4: IPv4Address
    ipv6: IPv6Address = UNSPECIFIED

    @classmethod
    def of(cls, mac: str, ipv4: IPv4Address) -> Station:
        """With the IPv6 link-local address that belongs to the MAC address (RFC 4291, appendix A)."""
        octets = bytes.fromhex(mac.replace(":", ""))
        interface = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
        return cls(mac, ipv4, IPv6Address(b"\xfe\x80" + bytes(6) + interface))


@dataclass(frozen=True, slots=True)
class Frame:
    """What it is, as a reader of a report would say it; its token; and its bytes."""

    label: str
    token: bytes
    data: bytes


class Workshop:
    """Makes frames from one sender; `nonce` tells this probe's frames from any other's."""

    def __init__(self, sender: Station, nonce: bytes) -> None:
        self._sender = sender
        self._nonce = nonce
        self._made = 0

    def raw(self, label: str, to: Station, ether_type: int = LOCAL_EXPERIMENT) -> Frame:
        """A frame of no protocol, padded to Ethernet's smallest size."""
        token = self._token()
        return self._frame(label, token, to.mac, ether_type, token.ljust(46, b"\0"))

    def arp(self, label: str, to: Station) -> Frame:
        """Who has `to`? Tell the sender. The token is in the padding behind the question."""
        token = self._token()
        question = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1) + _mac(self._sender.mac) + self._sender.ipv4.packed
        return self._frame(label, token, _BROADCAST, _ARP, question + bytes(6) + to.ipv4.packed + token)

    def vlan(self, label: str, to: Station) -> Frame:
        """UDP behind a VLAN tag, which the bridge hides from iptables by default."""
        token = self._token()
        packet = _ipv4(self._sender.ipv4, to.ipv4, _UDP, _udp(self._sender.ipv4, to.ipv4, 8080, token))
        return self._frame(label, token, to.mac, _VLAN, struct.pack("!HH", 1, _IPV4) + packet)

    def tcp(self, label: str, to: Station, port: int) -> Frame:
        """The first packet of a connection."""
        token = self._token()
        return self._over_ipv4(label, token, to, _TCP, _tcp(self._sender.ipv4, to.ipv4, port, token))

    def udp(self, label: str, to: Station, port: int, source: IPv4Address | None = None) -> Frame:
        """A datagram; `source` lends it another sender's address."""
        token, sender = self._token(), source or self._sender.ipv4
        return self._over_ipv4(label, token, to, _UDP, _udp(sender, to.ipv4, port, token), sender)

    def ping(self, label: str, to: Station) -> Frame:
        token = self._token()
        return self._over_ipv4(label, token, to, _ICMP, _echo(8, b"", token))

    def protocol(self, label: str, to: Station, number: int) -> Frame:
        """A packet of any IP protocol, its content nothing but the token."""
        token = self._token()
        return self._over_ipv4(label, token, to, number, token)

    def tcp6(self, label: str, to: Station, port: int) -> Frame:
        token = self._token()
        return self._over_ipv6(label, token, to, _TCP, _tcp(self._sender.ipv6, to.ipv6, port, token))

    def udp6(self, label: str, to: Station, port: int) -> Frame:
        token = self._token()
        return self._over_ipv6(label, token, to, _UDP, _udp(self._sender.ipv6, to.ipv6, port, token))

    def ping6(self, label: str, to: Station) -> Frame:
        token = self._token()
        pseudo = _pseudo(self._sender.ipv6, to.ipv6, _ICMPV6, 8 + len(token))
        return self._over_ipv6(label, token, to, _ICMPV6, _echo(128, pseudo, token))

    def _over_ipv4(
        self, label: str, token: bytes, to: Station, number: int, payload: bytes, source: IPv4Address | None = None
    ) -> Frame:
        return self._frame(label, token, to.mac, _IPV4, _ipv4(source or self._sender.ipv4, to.ipv4, number, payload))

    def _over_ipv6(self, label: str, token: bytes, to: Station, number: int, payload: bytes) -> Frame:
        head = struct.pack("!IHBB", 6 << 28, len(payload), number, 255)
        return self._frame(label, token, to.mac, _IPV6, head + self._sender.ipv6.packed + to.ipv6.packed + payload)

    def _frame(self, label: str, token: bytes, to: str, ether_type: int, payload: bytes) -> Frame:
        return Frame(label, token, _mac(to) + _mac(self._sender.mac) + struct.pack("!H", ether_type) + payload)

    def _token(self) -> bytes:
        self._made += 1
        return b"medforge-probe " + self._nonce + struct.pack("!H", self._made)


def broadcast_stations(network: IPv4Network) -> tuple[Station, Station]:
    """The network's broadcast address and the one of any network, as stations to send to."""
    return Station(_BROADCAST, network.broadcast_address), Station(_BROADCAST, IPv4Address("255.255.255.255"))


def multicast_station(group: IPv4Address | IPv6Address) -> Station:
    """A multicast group as a station to send to (RFC 1112, section 6.4; RFC 2464, section 7)."""
    if isinstance(group, IPv6Address):
        return Station("33:33:" + group.packed[-4:].hex(":"), IPv4Address(0), group)
    low = int(group) & 0x7FFFFF
    return Station("01:00:5e:" + low.to_bytes(3, "big").hex(":"), group)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ipv4(source: IPv4Address, destination: IPv4Address, number: int, payload: bytes) -> bytes:
    length = 20 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, number, 0) + source.packed + destination.packed
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + payload


def _tcp(source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, port: int, data: bytes) -> bytes:
    head = struct.pack("!HHIIBBHHH", _SOURCE_PORT, port, 1, 0, 5 << 4, _SYN, 64240, 0, 0)
    total = _checksum(_pseudo(source, destination, _TCP, len(head) + len(data)) + head + data)
    return head[:16] + struct.pack("!H", total) + head[18:] + data


def _udp(source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, port: int, data: bytes) -> bytes:
    head = struct.pack("!HHHH", _SOURCE_PORT, port, 8 + len(data), 0)
    total = _checksum(_pseudo(source, destination, _UDP, len(head) + len(data)) + head + data)
    return head[:6] + struct.pack("!H", total or 0xFFFF) + data


def _echo(kind: int, pseudo: bytes, data: bytes) -> bytes:
    head = struct.pack("!BBHHH", kind, 0, 0, 1, 1)
    return head[:2] + struct.pack("!H", _checksum(pseudo + head + data)) + head[4:] + data


def _pseudo(
    source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, number: int, length: int
) -> bytes:
    if isinstance(source, IPv4Address):
        return source.packed + destination.packed + struct.pack("!BBH", 0, number, length)
    return source.packed + destination.packed + struct.pack("!IHBB", length, 0, 0, number)


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
