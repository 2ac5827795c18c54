"""Owns telling a namespace's own addresses from the networks it knows."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from medforged.adapters.bridge.addresses import holds_address, local_addresses

pytestmark = pytest.mark.unit

# /proc/<pid>/net/fib_trie of a container on Linux 6.18, its second half (Local:) cut off: it repeats the first.
RECORDED = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 172.28.32.0/24 2 0 2
        +-- 172.28.32.0/30 2 0 2
           |-- 172.28.32.0
              /24 link UNICAST
           |-- 172.28.32.2
              /32 host LOCAL
        |-- 172.28.32.255
           /32 link BROADCAST
"""


def test_only_its_own_addresses_are_its_own() -> None:
    own = {IPv4Address("127.0.0.1"), IPv4Address("172.28.32.2")}
    assert local_addresses(RECORDED.splitlines()) == own


def test_a_process_holds_the_addresses_of_its_namespace(tmp_path: Path) -> None:
    place = tmp_path / "4711" / "net"
    place.mkdir(parents=True)
    (place / "fib_trie").write_text(RECORDED)

    assert holds_address(4711, IPv4Address("172.28.32.2"), tmp_path)
    assert not holds_address(4711, IPv4Address("172.28.32.0"), tmp_path)
    assert not holds_address(4711, IPv4Address("172.28.32.3"), tmp_path)


def test_a_process_that_is_gone_holds_none(tmp_path: Path) -> None:
    assert not holds_address(4711, IPv4Address("172.28.32.2"), tmp_path)
