"""Owns the conformance suite of the `isolation` port: the fake, the simulated one and the one of a real host behave alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

import pytest

from medforged.adapters.iptables.rules import chain_names
from medforged.adapters.isolation import EastWestIsolation
from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.domain.containers import Endpoint, SessionNetwork
from medforged.ports.isolation import Isolation
from tests.fakes.isolation import FakeIsolation
from tests.host import isolation_world
from tests.host.isolation_world import Station

pytest_plugins = ["tests.host.isolation_fixtures"]


class World(Protocol):
    """An isolation, the network that it is about, and what happens to both."""

    isolation: Isolation
    proxy: IPv4Address

    async def network(self) -> SessionNetwork:
        """As it is now: a proxy and two sessions, and who has joined."""
        ...

    async def join(self) -> None:
        """Let another session be attached."""
        ...

    async def lose(self) -> None:
        """Let the host lose what keeps sessions apart."""
        ...


class SimulatedWorld:
    def __init__(self, isolation: SimulatedIsolation) -> None:
        self.isolation: Isolation = isolation
        self._simulated = isolation
        subnet = IPv4Network("172.28.99.0/24")
        self.proxy = subnet[2]
        endpoints = tuple(Endpoint(f"sim-{last}", subnet[last], last) for last in (2, 128, 129))
        self._network = SessionNetwork("sim", "sim0", subnet, subnet[1], endpoints)

    async def network(self) -> SessionNetwork:
        return self._network

    async def join(self) -> None:
        last = 127 + len(self._network.endpoints)
        joined = Endpoint(f"sim-{last}", self._network.subnet[last], last)
        self._network = replace(self._network, endpoints=(*self._network.endpoints, joined))

    async def lose(self) -> None:
        self._simulated.lose(self._network.name)


class HostWorld:
    def __init__(self, isolation: Isolation, world: isolation_world.World) -> None:
        self.isolation = isolation
        self.proxy = world.proxy.address
        self.joined: list[Station] = []
        self._world = world

    async def network(self) -> SessionNetwork:
        return await asyncio.to_thread(lambda: self._world.network)

    async def join(self) -> None:
        name = f"joined{len(self.joined)}"
        self.joined.append(await asyncio.to_thread(lambda: self._world.start(name)))

    async def lose(self) -> None:
        name = self._world.spec.name
        for hook, chain in chain_names(name, name).items():
            jump = ("-m", "comment", "--comment", f"{name}: {name}", "-j", chain)
            await asyncio.to_thread(isolation_world.run, "iptables-legacy", "-w", "-D", hook, *jump)


@pytest.fixture(
    params=[
        pytest.param("fake", marks=pytest.mark.unit),
        pytest.param("simulated", marks=pytest.mark.unit),
        pytest.param("host", marks=pytest.mark.host),
    ]
)
async def site(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param != "host":
        yield SimulatedWorld(FakeIsolation() if request.param == "fake" else SimulatedIsolation())
        return
    world: isolation_world.World = request.getfixturevalue("running_world")
    isolation = EastWestIsolation(world.spec.name)
    made = HostWorld(isolation, world)
    try:
        yield made
    finally:
        for one in made.joined:
            await asyncio.to_thread(world.stop, one)
        await isolation.remove(await made.network())
        await isolation.close()


async def test_describes_itself(site: World) -> None:
    described = site.isolation.describe()

    assert described.port == "isolation"
    assert described.real is isinstance(site, HostWorld)
    assert described.adapter
    assert described.reason


async def test_nothing_holds_before_it_is_established(site: World) -> None:
    report = await site.isolation.verify(await site.network(), site.proxy)

    assert not report.holds
    assert report.problems


async def test_what_is_established_holds_when_probed(site: World) -> None:
    established = await site.isolation.ensure(await site.network(), site.proxy)
    probed = await site.isolation.verify(await site.network(), site.proxy)

    assert established.holds
    assert probed.holds
    assert established.changed
    assert (established.problems, probed.problems, probed.changed) == ((), (), ())
    assert established.layers == probed.layers != ()


async def test_establishing_again_changes_nothing(site: World) -> None:
    network = await site.network()
    await site.isolation.ensure(network, site.proxy)

    # On a host, somebody else's bridge can come or go between two calls, and is a change.
    reports = [await site.isolation.ensure(network, site.proxy) for _ in range(5)]

    assert all(report.holds for report in reports)
    assert () in [report.changed for report in reports]


async def test_a_session_that_joins_is_covered_from_the_next_call_on(site: World) -> None:
    await site.isolation.ensure(await site.network(), site.proxy)
    await site.join()
    assert not (await site.isolation.verify(await site.network(), site.proxy)).holds

    report = await site.isolation.ensure(await site.network(), site.proxy)

    assert report.holds
    assert len([change for change in report.changed if "port" in change and "isolated" in change]) == 1
    assert (await site.isolation.verify(await site.network(), site.proxy)).holds


async def test_what_is_lost_is_seen_and_repaired(site: World) -> None:
    network = await site.network()
    await site.isolation.ensure(network, site.proxy)
    await site.lose()
    assert not (await site.isolation.verify(network, site.proxy)).holds

    report = await site.isolation.ensure(network, site.proxy)

    assert report.holds
    assert report.changed
    assert (await site.isolation.verify(network, site.proxy)).holds


async def test_without_a_proxy_it_holds_all_the_same(site: World) -> None:
    network = await site.network()
    alone = replace(network, endpoints=tuple(one for one in network.endpoints if one.address != site.proxy))

    assert (await site.isolation.ensure(alone, site.proxy)).holds
    assert (await site.isolation.verify(alone, site.proxy)).holds


async def test_removal_ends_it_and_can_be_repeated(site: World) -> None:
    network = await site.network()
    await site.isolation.remove(network)
    await site.isolation.ensure(network, site.proxy)

    await site.isolation.remove(network)
    await site.isolation.remove(network)

    assert not (await site.isolation.verify(network, site.proxy)).holds


async def test_removal_of_what_does_not_exist(site: World) -> None:
    await site.isolation.remove(replace(await site.network(), name="mfiso-nowhere", bridge="mfiso-nowhere"))


async def test_calls_at_once(site: World) -> None:
    network = await site.network()
    reports = await asyncio.gather(*(site.isolation.ensure(network, site.proxy) for _ in range(8)))
    assert all(report.holds for report in reports)
    reports = await asyncio.gather(
        *(site.isolation.ensure(network, site.proxy) for _ in range(4)),
        *(site.isolation.verify(network, site.proxy) for _ in range(2)),
    )
    assert all(report.holds for report in reports)


async def test_a_cancelled_probe_does_not_stand_in_the_way(site: World) -> None:
    network = await site.network()
    await site.isolation.ensure(network, site.proxy)
    probing = asyncio.create_task(site.isolation.verify(network, site.proxy))
    await asyncio.sleep(0)
    probing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probing

    assert (await site.isolation.verify(network, site.proxy)).holds
