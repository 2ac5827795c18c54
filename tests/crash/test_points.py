"""Owns the tests of where the points are: what is listed as a look is a method of its port, and listed once."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from medforged.ports.parts import Adapters, Parts
from tests.crash.points import LOOKS, PLAIN, PORTS

pytestmark = pytest.mark.unit


def _methods(port: str) -> set[str]:
    return {name for name, _ in inspect.getmembers(PORTS[port], inspect.isfunction) if not name.startswith("_")}


def test_every_port_is_there() -> None:
    # Where a port is that is not among those that are watched, no daemon would ever be killed.
    assert {field.name for field in fields(Adapters)} <= set(PORTS)
    assert set(PORTS) <= {field.name for field in (*fields(Adapters), *fields(Parts))}
    assert set(PORTS) == set(LOOKS)
    assert set(PLAIN) <= set(PORTS)


@pytest.mark.parametrize("port", sorted(PORTS))
def test_what_is_listed_is_a_method_of_the_port(port: str) -> None:
    looks, plain = LOOKS[port], PLAIN.get(port, frozenset())
    assert looks | plain <= _methods(port)
    assert not looks & plain


@pytest.mark.parametrize("port", ["state", "containers", "workspaces", "isolation", "gpus"])
def test_ports_that_change_something_have_points(port: str) -> None:
    assert _methods(port) - LOOKS[port] - PLAIN[port] if port in PLAIN else _methods(port) - LOOKS[port]
