"""Owns that a probe's frames are well-formed, so that nothing but isolation has a reason to drop them."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from medforged.adapters.isolation.frames import Frame, Station, Workshop, broadcast_stations, multicast_station

pytestmark = pytest.mark.unit

NEAR = Station.of("02:6d:04:00:00:01", IPv4Address("172.30.0.4"))
FAR = Station.of("02:6d:05:00:00:02", IPv4Address("172.30.0.5"))
MAKE = Workshop(NEAR, b"12345678")
PROXY = IPv4Address("172.30.0.2")

IPV4 = [
    MAKE.tcp("tcp", FAR, 8080),
    MAKE.udp("udp", FAR, 8080),
    MAKE.udp("udp under another address", FAR, 8080, PROXY),
    MAKE.ping("ping", FAR),
    MAKE.protocol("sctp", FAR, 132),
]
IPV6 = [MAKE.tcp6("tcp6", FAR, 8080), MAKE.udp6("udp6", FAR, 8080), MAKE.ping6("ping6", FAR)]


def ones_sum(data: bytes) -> int:
    """The ones' complement sum, added up one word at a time; over data with its checksum it is all ones."""
    total = 0
    for place in range(0, len(data), 2):
        total += int.from_bytes(data[place : place + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def label(frame: Frame) -> str:
    return frame.label


@pytest.mark.parametrize("frame", IPV4, ids=label)
def test_ipv4_headers(frame: Frame) -> None:
    packet = frame.data[14:]
    assert frame.data[12:14] == b"\x08\x00"
    assert (packet[0], struct.unpack_from("!H", packet, 2)[0]) == (0x45, len(packet))
    assert ones_sum(packet[:20]) == 0xFFFF
    assert packet[16:20] == FAR.ipv4.packed
    assert packet[12:16] == (PROXY if "another" in frame.label else NEAR.ipv4).packed


@pytest.mark.parametrize("frame", [frame for frame in IPV4 if frame.label != "sctp"], ids=label)
def test_ipv4_checksums(frame: Frame) -> None:
    packet = frame.data[14:]
    number, payload = packet[9], packet[20:]
    pseudo = packet[12:20] + struct.pack("!BBH", 0, number, len(payload)) if number != socket.IPPROTO_ICMP else b""
    assert ones_sum(pseudo + payload) == 0xFFFF


@pytest.mark.parametrize("frame", IPV6, ids=label)
def test_ipv6_headers_and_checksums(frame: Frame) -> None:
    packet = frame.data[14:]
    assert frame.data[12:14] == b"\x86\xdd"
    assert packet[0] >> 4 == 6
    length, number, hops = struct.unpack_from("!HBB", packet, 4)
    payload = packet[40:]
    assert (length, hops) == (len(payload), 255)
    assert (packet[8:24], packet[24:40]) == (NEAR.ipv6.packed, FAR.ipv6.packed)
    assert ones_sum(packet[8:40] + struct.pack("!II", length, number) + payload) == 0xFFFF


@pytest.mark.parametrize("frame", [*IPV4, *IPV6, MAKE.raw("raw", FAR), MAKE.vlan("vlan", FAR)], ids=label)
def test_frames_go_from_station_to_station(frame: Frame) -> None:
    assert frame.data[:6].hex(":") == FAR.mac
    assert frame.data[6:12].hex(":") == NEAR.mac


def test_tcp_opens_a_connection() -> None:
    segment = IPV4[0].data[34:]
    assert struct.unpack_from("!H", segment, 2)[0] == 8080
    assert segment[13] == 0x02  # SYN and nothing else


def test_arp_asks_everybody_for_the_other_station() -> None:
    frame = MAKE.arp("arp", FAR)
    assert frame.data[:6] == b"\xff" * 6
    assert frame.data[12:22] == bytes.fromhex("0806 0001 0800 06 04 0001")
    assert frame.data[28:32] == NEAR.ipv4.packed
    assert frame.data[38:42] == FAR.ipv4.packed


def test_a_vlan_tag_stands_before_an_ordinary_packet() -> None:
    frame = MAKE.vlan("vlan", FAR)
    assert frame.data[12:18] == bytes.fromhex("8100 0001 0800")
    assert ones_sum(frame.data[18:38]) == 0xFFFF


def test_every_frame_has_a_token_of_its_own() -> None:
    frames = [*IPV4, *IPV6, MAKE.raw("raw", FAR), MAKE.arp("arp", FAR), MAKE.vlan("vlan", FAR)]
    other = Workshop(NEAR, b"87654321").raw("raw", FAR)

    assert len({frame.token for frame in (*frames, other)}) == len(frames) + 1
    for frame in frames:
        assert [one.label for one in (*frames, other) if frame.token in one.data] == [frame.label]


def test_link_local_addresses_follow_from_mac_addresses() -> None:
    """The example of RFC 4291, appendix A."""
    assert Station.of("34:56:78:9a:bc:de", PROXY).ipv6 == IPv6Address("fe80::3656:78ff:fe9a:bcde")


def test_broadcasts_and_groups_have_their_mac_addresses() -> None:
    of_network, of_all = broadcast_stations(IPv4Network("172.30.0.0/24"))
    assert (of_network.mac, of_network.ipv4) == ("ff:ff:ff:ff:ff:ff", IPv4Address("172.30.0.255"))
    assert (of_all.mac, of_all.ipv4) == ("ff:ff:ff:ff:ff:ff", IPv4Address("255.255.255.255"))
    # RFC 1112 maps 23 bits only; the example has the 24th set. RFC 2464 maps the last 32.
    assert multicast_station(IPv4Address("239.129.2.3")).mac == "01:00:5e:01:02:03"
    assert multicast_station(IPv6Address("ff02::1")).mac == "33:33:00:00:00:01"
