"""Owns which ports are isolated: all but the proxy's, whatever is not known included."""

from __future__ import annotations

import pytest

from medforged.adapters.bridge.links import Port
from medforged.adapters.bridge.ports import decide

pytestmark = pytest.mark.unit


def port(name: str, namespace: int | None, *, isolated: bool = False) -> Port:
    return Port(hash(name) % 1000, name, isolated, True, namespace, "veth")


def decided(*ports: Port, proxies: tuple[int, ...] = (0,), exempt: tuple[str, ...] = ()) -> dict[str, bool]:
    return {port.name: flag for port, flag in decide(ports, proxies, exempt)}


def test_sessions_are_isolated_and_the_proxy_is_not() -> None:
    assert decided(port("proxy", 0), port("a", 1), port("b", 2)) == {"a": True, "b": True}
    assert decided(port("proxy", 0, isolated=True), port("a", 1, isolated=True)) == {"proxy": False}


def test_what_is_right_is_left_alone() -> None:
    assert decided(port("proxy", 0), port("a", 1, isolated=True)) == {}


def test_a_port_whose_other_end_is_unknown_is_isolated() -> None:
    """One that leads nowhere, to the host itself, or to a physical interface."""
    assert decided(port("a", None)) == {"a": True}


def test_without_a_proxy_every_port_is_isolated() -> None:
    assert decided(port("proxy", 0), port("a", 1), proxies=()) == {"proxy": True, "a": True}


def test_ports_of_a_probe_are_left_alone() -> None:
    assert decided(port("near", 3), port("far", 4, isolated=True), exempt=("near", "far")) == {}
