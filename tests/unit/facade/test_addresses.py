"""Which address a request comes from: what the trusted proxy says last, and nothing that a client says."""

from __future__ import annotations

from typing import Any, cast

import pytest
from multidict import CIMultiDict

from facade.auth.addresses import Addresses, ClientAddress

pytestmark = pytest.mark.unit

CADDY = "172.30.0.2"


class Request:
    """`remote` is the peer: an address, "" for a Unix socket, None for a client that has gone."""

    def __init__(self, remote: str | None, *forwarded: str, **others: str) -> None:
        self.remote = remote
        self.headers: CIMultiDict[str] = CIMultiDict([("X-Forwarded-For", line) for line in forwarded])
        self.headers.extend({name.replace("_", "-"): value for name, value in others.items()})


def told(remote: str | None, *forwarded: str, trusted: tuple[str, ...] = (), **others: str) -> str:
    return str(Addresses(trusted).of(cast("Any", Request(remote, *forwarded, **others))))


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["2001:db8::1"], "2001:db8::1"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1,\t203.0.113.9 "], "203.0.113.9"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["fe80::1%eth0"], "fe80::1"),
        (["127.0.0.1"], "127.0.0.1"),
        ([], "unknown"),
        ([""], "unknown"),
        (["198.51.100.1,"], "unknown"),
        (["198.51.100.1, unknown"], "unknown"),
        (["198.51.100.1", "203.0.113.9:443"], "unknown"),
        (["[2001:db8::1]"], "unknown"),
        (["203.0.113.09"], "unknown"),
        (["203.0.113"], "unknown"),
        (["3405803785"], "unknown"),
        (["٢٠٣.0.113.9"], "unknown"),
    ],
)
def test_over_the_unix_socket_the_last_entry_counts(forwarded: list[str], address: str) -> None:
    assert told("", *forwarded) == address


def test_over_tcp_the_peer_counts_whatever_it_says() -> None:
    assert told("198.51.100.7", "203.0.113.9") == "198.51.100.7"
    assert told("::ffff:198.51.100.7", "203.0.113.9") == "198.51.100.7"
    assert told("fe80::1%eth0") == "fe80::1"


def test_over_tcp_a_client_that_has_gone_is_nobody_and_not_believed() -> None:
    assert told(None, "203.0.113.9") == "unknown"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.2", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.2", ["203.0.113.9"], "203.0.113.9"),
        ("fd00::7", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.2", ["192.0.2.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.2", ["203.0.113.9, 10.0.0.3"], "203.0.113.9"),
        ("10.0.0.2", ["192.0.2.1", "203.0.113.9, 10.0.0.3", "10.0.0.4"], "203.0.113.9"),
        ("10.0.0.2", ["10.0.0.3, 10.0.0.4"], "10.0.0.3"),
        ("10.0.0.2", [], "10.0.0.2"),
        ("10.0.0.2", ["203.0.113.9, nonsense"], "10.0.0.2"),
        ("10.0.0.2", ["203.0.113.9, nonsense, 10.0.0.3"], "10.0.0.3"),
        ("10.1.0.2", ["203.0.113.9"], "10.1.0.2"),
        ("", ["203.0.113.9, 10.0.0.3"], "203.0.113.9"),
    ],
)
def test_trusted_proxies_are_believed_as_far_as_they_reach(peer: str, forwarded: list[str], address: str) -> None:
    assert told(peer, *forwarded, trusted=("10.0.0.0/16", "fd00::/8")) == address


def test_no_other_header_is_read() -> None:
    others = {"Forwarded": "for=203.0.113.9", "X_Real_IP": "203.0.113.9", "X_Client_IP": "203.0.113.9"}
    assert told(CADDY, "203.0.113.9", **others) == CADDY
    assert told("", **others) == "unknown"


def keys(text: str) -> tuple[bytes, bytes]:
    address = Addresses().of(cast("Any", Request("", text)))
    return address.key, address.network


def test_ipv6_is_counted_by_64_and_48() -> None:
    one, neighbour = keys("2001:db8:1:2::1"), keys("2001:db8:1:2:ffff:ffff:ffff:ffff")
    same_site, elsewhere = keys("2001:db8:1:3::1"), keys("2001:db8:2:2::1")
    assert one == neighbour
    assert one[0] != same_site[0]
    assert one[1] == same_site[1] != elsewhere[1]


def test_ipv4_is_counted_by_address_and_nothing_has_the_key_of_another_kind() -> None:
    assert keys("203.0.113.9") != keys("203.0.113.10")
    distinct = {*keys("203.0.113.9"), *keys("::"), *keys("2001:db8::1"), ClientAddress(None).key}
    assert len(distinct) == 6
