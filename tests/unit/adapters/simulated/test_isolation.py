"""What is left of simulated isolation when the daemon's process ends, and what others can do to it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.domain.containers import Endpoint, SessionNetwork
from medforged.domain.errors import IsolationError
from medforged.domain.isolation import Stray, StrayKind

pytestmark = pytest.mark.integration

SUBNET = IPv4Network("172.30.0.0/24")
PROXY = SUBNET[2]
NETWORK = SessionNetwork("sim", "sim0", SUBNET, SUBNET[1], (Endpoint("one", SUBNET[128], 128),))
PORT = Stray(StrayKind.PORT, "veth1", "it leads to no container")
RULES = Stray(StrayKind.RULES, "MEDFORGE-old", "its network does not exist")
MakeHost = Callable[[], SimulatedHost]


@pytest.fixture(params=["memory", "folder"])
def host_of(request: pytest.FixtureRequest, tmp_path: Path) -> MakeHost:
    """Gives the same host each time, as every process that opens its folder gets it."""
    if request.param == "folder":
        return lambda: SimulatedHost(tmp_path)
    shared = SimulatedHost()
    return lambda: shared


async def test_what_is_in_place_outlives_the_process(host_of: MakeHost) -> None:
    first = SimulatedIsolation(host=host_of())
    await first.ensure(NETWORK, PROXY)
    await first.close()

    again = SimulatedIsolation(host=host_of())

    assert (await again.verify(NETWORK, PROXY)).holds
    assert (await again.ensure(NETWORK, PROXY)).changed == ()
    joined = replace(NETWORK, endpoints=(*NETWORK.endpoints, Endpoint("two", SUBNET[129], 129)))
    assert (await again.verify(joined, PROXY)).problems == ("port of two is not isolated",)
    await again.remove(NETWORK)
    assert not (await SimulatedIsolation(host=host_of()).verify(NETWORK, PROXY)).holds


async def test_a_loss_is_noticed_whoever_causes_it_and_a_repair_of_ours_is_not(host_of: MakeHost) -> None:
    isolation, tool = SimulatedIsolation(host=host_of()), SimulatedIsolation(host=host_of())
    assert not await isolation.changed(0)
    await isolation.ensure(NETWORK, PROXY)
    assert not await isolation.changed(0)
    tool.lose("sim")
    assert await isolation.changed(60)
    assert not await isolation.changed(0)
    assert not (await isolation.verify(NETWORK, PROXY)).holds
    assert (await isolation.ensure(NETWORK, PROXY)).changed == ("rules of sim made", "port of one isolated")
    waiting = asyncio.create_task(isolation.changed(60))
    await asyncio.sleep(0)
    tool.lose("sim")
    assert await waiting
    await isolation.remove(NETWORK)
    assert not await isolation.changed(0)


async def test_a_file_that_is_removed_is_a_flush(tmp_path: Path) -> None:
    isolation = SimulatedIsolation(host=SimulatedHost(tmp_path))
    await isolation.ensure(NETWORK, PROXY)
    (tmp_path / "isolation" / "sim.json").unlink()
    assert await isolation.changed(60)
    assert not (await isolation.verify(NETWORK, PROXY)).holds


async def test_what_fails_and_leaks_does_so_for_every_process(host_of: MakeHost) -> None:
    isolation, tool = SimulatedIsolation(host=host_of()), SimulatedIsolation(host=host_of())
    tool.leak("UDP passed")
    tool.fail("the bridge is gone")
    for call in (isolation.ensure, isolation.strays):
        with pytest.raises(IsolationError, match=r"of sim: the bridge is gone \(simulated\)"):
            await call(NETWORK, PROXY)
    with pytest.raises(IsolationError, match="cannot remove what is left of isolation of sim"):
        await isolation.remove_stray(NETWORK, PROXY, PORT)
    assert await isolation.changed(60)
    tool.restore()
    await isolation.ensure(NETWORK, PROXY)
    assert (await isolation.verify(NETWORK, PROXY)).holds


async def test_strays_are_listed_by_name_and_removed_one_by_one(host_of: MakeHost) -> None:
    isolation, tool = SimulatedIsolation(host=host_of()), SimulatedIsolation(host=host_of())
    await isolation.ensure(NETWORK, PROXY)
    assert await isolation.strays(NETWORK, PROXY) == ()
    tool.add_stray("sim", PORT)
    tool.add_stray("sim", RULES)
    assert await isolation.changed(60)
    assert await isolation.strays(NETWORK, PROXY) == (RULES, PORT)
    assert await isolation.strays(replace(NETWORK, name="other"), PROXY) == ()
    await isolation.ensure(NETWORK, PROXY)
    for _ in range(2):
        await isolation.remove_stray(NETWORK, PROXY, RULES)
        assert await isolation.strays(NETWORK, PROXY) == (PORT,)
    await isolation.remove(NETWORK)
    assert await isolation.strays(NETWORK, PROXY) == (PORT,)
    await isolation.remove_stray(NETWORK, PROXY, replace(PORT, reason="told otherwise"))
    assert await isolation.strays(NETWORK, PROXY) == ()
    assert not await isolation.changed(0)


async def test_a_port_that_leads_to_a_container_by_now_stays() -> None:
    isolation = SimulatedIsolation()
    port = replace(PORT, name="one")
    isolation.add_stray("sim", port)
    assert await isolation.strays(NETWORK, PROXY) == ()
    await isolation.remove_stray(NETWORK, PROXY, port)
    left = replace(NETWORK, endpoints=())
    assert await isolation.strays(left, PROXY) == (port,)
    await isolation.remove_stray(left, PROXY, port)
    assert await isolation.strays(left, PROXY) == ()
