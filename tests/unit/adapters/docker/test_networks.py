"""Owns the tests of what the sessions' network has to be."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from medforged.adapters.docker.networks import EngineNetworks, differences, network_request
from medforged.domain.containers import Endpoint, NetworkSpec
from medforged.domain.errors import ContainerError, ContainerMissing

pytestmark = pytest.mark.unit

RECORDED = Path(__file__).parents[3] / "fixtures" / "docker"


def recorded(engine: str, what: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((RECORDED / engine / f"{what}.json").read_text(encoding="utf-8"))
    return answer


def spec_of(answer: dict[str, Any]) -> NetworkSpec:
    addresses = answer["IPAM"]["Config"][0]
    return NetworkSpec(
        answer["Name"],
        IPv4Network(addresses["Subnet"]),
        IPv4Address(addresses["Gateway"]),
        IPv4Network(addresses["IPRange"]),
        "mfctrec0",
    )


class FakeEngine:
    """The part of docker-py's client that networks are read with."""

    def __init__(self, network: dict[str, Any], container: dict[str, Any]) -> None:
        self.network, self.container = network, container
        self.looks = 0

    def inspect_network(self, name: str) -> dict[str, Any]:
        return self.network

    def inspect_container(self, identity: str) -> dict[str, Any]:
        self.looks += 1
        return self.container


def test_request() -> None:
    subnet = IPv4Network("172.30.0.0/24")
    spec = NetworkSpec("sessions", subnet, subnet[1], IPv4Network("172.30.0.128/25"), "medforge0")

    assert network_request(spec, "medforge") == {
        "name": "sessions",
        "driver": "bridge",
        "check_duplicate": True,
        "options": {
            "com.docker.network.bridge.name": "medforge0",
            "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.enable_ipv6": "false",
        },
        "ipam": {
            "Driver": "default",
            "Config": [{"Subnet": "172.30.0.0/24", "IPRange": "172.30.0.128/25", "Gateway": "172.30.0.1"}],
        },
        "labels": {"dev.medforge.instance": "medforge"},
    }


@pytest.mark.parametrize("engine", ["20.10", "28.5"])
def test_network_as_it_was_made_has_no_difference(engine: str) -> None:
    answer = recorded(engine, "network")

    assert differences(spec_of(answer), answer) == ()


@pytest.mark.parametrize(
    ("path", "value", "phrase"),
    [
        (("Driver",), "macvlan", "driver is macvlan, not bridge"),
        (("IPAM", "Config", 0, "Subnet"), "10.0.0.0/24", "subnet is 10.0.0.0/24"),
        (("IPAM", "Config", 0, "Gateway"), "10.0.0.1", "gateway is 10.0.0.1"),
        (("IPAM", "Config", 0, "IPRange"), None, "address range is None"),
        (("IPAM", "Config"), [], "subnet is None"),
        (("IPAM", "Config"), None, "subnet is None"),
        (("EnableIPv6",), True, "IPv6 is True"),
        (("Internal",), True, "isolation from outside is True"),
        (("Options", "com.docker.network.bridge.name"), "br9", "bridge is br9"),
        (("Options", "com.docker.network.bridge.enable_icc"), "false", "(enable_icc) is false"),
    ],
)
def test_each_difference_is_named(path: tuple[str | int, ...], value: object, phrase: str) -> None:
    answer = recorded("20.10", "network")
    spec = spec_of(answer)
    inner: Any = answer
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value

    assert any(phrase in difference for difference in differences(spec, answer))


def test_second_subnet_is_a_difference() -> None:
    answer = recorded("28.5", "network")
    spec = spec_of(answer)
    answer["IPAM"]["Config"].append({"Subnet": "fd00::/64", "Gateway": "fd00::1"})

    assert "number of subnets is 2, not 1" in differences(spec, answer)


def test_bridge_without_a_name_of_its_own_is_called_after_the_network() -> None:
    answer = recorded("20.10", "network")
    answer["Options"] = {}
    engine = FakeEngine(answer, recorded("20.10", "running"))

    assert EngineNetworks("medforge").read(engine, answer["Name"]).bridge == f"br-{answer['Id'][:12]}"


@pytest.mark.parametrize("engine_name", ["20.10", "28.5"])
def test_process_of_an_endpoint_is_looked_up_once_until_there_is_a_new_endpoint(engine_name: str) -> None:
    answer, container = recorded(engine_name, "network"), recorded(engine_name, "running")
    engine, networks = FakeEngine(answer, container), EngineNetworks("medforge")
    for _ in range(3):
        (endpoint,) = networks.read(engine, answer["Name"]).endpoints
    address = IPv4Address(container["NetworkSettings"]["Networks"]["mfct-recorded"]["IPAddress"])
    assert endpoint == Endpoint("mf-session-abcd2345", address, container["State"]["Pid"])
    assert engine.looks == 1

    next(iter(answer["Containers"].values()))["EndpointID"] = "started again"
    container["State"]["Pid"] = 4711

    assert networks.read(engine, answer["Name"]).endpoints[0].process_id == 4711


def test_endpoint_that_has_gone_meanwhile_is_left_out() -> None:
    answer, container = recorded("20.10", "network"), recorded("20.10", "exited")

    assert EngineNetworks("medforge").read(FakeEngine(answer, container), answer["Name"]).endpoints == ()


def test_network_that_was_found_by_the_beginning_of_an_id_is_not_the_one() -> None:
    answer = recorded("20.10", "network")

    with pytest.raises(ContainerMissing):
        EngineNetworks("medforge").read(FakeEngine(answer, {}), answer["Id"][:8])


@pytest.mark.parametrize("config", [None, [], [{}], [{"Subnet": "fd00::/64", "Gateway": "fd00::1"}], [{"Subnet": "x"}]])
def test_network_without_addresses_is_an_error(config: object) -> None:
    answer = recorded("20.10", "network")
    answer["IPAM"]["Config"] = config

    with pytest.raises(ContainerError, match="no IPv4 subnet and gateway"):
        EngineNetworks("medforge").read(FakeEngine(answer, {}), answer["Name"])


def test_bridge_name_that_the_kernel_cannot_take_is_refused_before_anything_is_made() -> None:
    answer = recorded("20.10", "network")

    with pytest.raises(ContainerError, match="longer than 15"):
        EngineNetworks("medforge").ensure(FakeEngine(answer, {}), replace(spec_of(answer), bridge="b" * 16))
