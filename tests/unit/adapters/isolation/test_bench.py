"""Owns where a probe stands: on names and addresses that nothing else has."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from medforged.adapters.isolation.bench import probe_place
from medforged.domain.containers import Endpoint, SessionNetwork
from medforged.domain.errors import IsolationError

pytestmark = pytest.mark.unit

SUBNET = IPv4Network("172.30.0.0/24")
NETWORK = SessionNetwork("medforge-public-sessions", "mf-public", SUBNET, SUBNET[1], ())


def endpoints(*last: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(f"container{one}", SUBNET[one], one) for one in last)


def test_it_is_the_same_every_time() -> None:
    place = probe_place("medforge", NETWORK, SUBNET[2])

    assert place == probe_place("medforge", NETWORK, SUBNET[2])
    assert (place.near.ipv4, place.far.ipv4) == (IPv4Address("172.30.0.4"), IPv4Address("172.30.0.5"))


def test_installations_and_networks_have_places_of_their_own() -> None:
    places = [
        probe_place("medforge", NETWORK, SUBNET[2]),
        probe_place("other", NETWORK, SUBNET[2]),
        probe_place("medforge", replace(NETWORK, name="medforge-private-sessions"), SUBNET[2]),
    ]
    assert len({port for place in places for port in place.ports}) == 6
    assert len({station.mac for place in places for station in (place.near, place.far)}) == 6
    assert all(len(port) <= 15 for place in places for port in place.ports)


def test_mac_addresses_are_local_and_of_one_station() -> None:
    place = probe_place("medforge", NETWORK, SUBNET[2])
    for station in (place.near, place.far):
        assert int(station.mac[:2], 16) & 0b11 == 0b10


def test_addresses_in_use_are_left_alone() -> None:
    place = probe_place("medforge", replace(NETWORK, endpoints=endpoints(2, 5, 128)), SUBNET[4])
    assert (place.near.ipv4, place.far.ipv4) == (SUBNET[6], SUBNET[7])


def test_no_address_left() -> None:
    crowded = replace(NETWORK, endpoints=endpoints(*range(4, 15)))
    with pytest.raises(IsolationError, match=r"172.30.0.4 to 172.30.0.15; recreate the network"):
        probe_place("medforge", crowded, SUBNET[2])
