"""Owns what a test or a demonstration can do to simulated isolation."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.domain.containers import SessionNetwork
from medforged.domain.errors import IsolationError

pytestmark = pytest.mark.unit

SUBNET = IPv4Network("172.30.0.0/24")
NETWORK = SessionNetwork("sim", "sim0", SUBNET, SUBNET[1], ())


async def test_every_call_fails_until_restored() -> None:
    isolation = SimulatedIsolation()
    isolation.fail("the bridge is gone")
    for call in (isolation.ensure, isolation.verify):
        with pytest.raises(IsolationError, match=r"of sim: the bridge is gone \(simulated\)"):
            await call(NETWORK, SUBNET[2])
    with pytest.raises(IsolationError, match="cannot remove isolation"):
        await isolation.remove(NETWORK)

    isolation.restore()
    assert (await isolation.ensure(NETWORK, SUBNET[2])).holds


async def test_a_leak_is_found_by_probes_alone_until_restored() -> None:
    isolation = SimulatedIsolation()
    isolation.leak("UDP passed")
    assert (await isolation.ensure(NETWORK, SUBNET[2])).holds
    assert (await isolation.verify(NETWORK, SUBNET[2])).problems == ("UDP passed",)

    isolation.restore()
    assert (await isolation.verify(NETWORK, SUBNET[2])).holds


async def test_networks_are_apart() -> None:
    isolation = SimulatedIsolation()
    other = SessionNetwork("other", "sim1", SUBNET, SUBNET[1], ())
    await isolation.ensure(NETWORK, SUBNET[2])
    await isolation.ensure(other, SUBNET[2])
    isolation.lose("sim")

    assert not (await isolation.verify(NETWORK, SUBNET[2])).holds
    assert (await isolation.verify(other, SUBNET[2])).holds
