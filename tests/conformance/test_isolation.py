"""Owns the conformance suite of the `isolation` port: the fake, the simulated one and the one of a real host behave alike."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

import pytest

from medforged.adapters.iptables.rules import chain_names
from medforged.adapters.isolation import EastWestIsolation
from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.domain.containers import Endpoint, SessionNetwork
from medforged.domain.isolation import Stray, StrayKind
from medforged.ports.isolation import Isolation
from tests.fakes.isolation import FakeIsolation
from tests.host import isolation_world
from tests.host.isolation_world import Station

pytest_plugins = ["tests.host.isolation_fixtures"]

# A port is without its container for most of a second when that starts, longer on a machine that is busy.
_SETTLED_SECONDS = 5.0
_STARTS = 20


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

    async def leave(self) -> None:
        """Let the one that joined last end."""
        ...

    async def lose(self) -> None:
        """Let the host lose what keeps sessions apart."""
        ...

    async def change(self) -> None:
        """Let something happen to the host's interfaces."""
        ...

    async def leave_port(self) -> str:
        """Let a port be there that leads to no container."""
        ...

    async def leave_rules(self) -> tuple[str, ...]:
        """Let this installation have had another network."""
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

    async def leave(self) -> None:
        self._network = replace(self._network, endpoints=self._network.endpoints[:-1])

    async def lose(self) -> None:
        self._simulated.lose(self._network.name)

    async def change(self) -> None:
        self._simulated.lose(self._network.name)

    async def leave_port(self) -> str:
        self._simulated.add_stray(self._network.name, Stray(StrayKind.PORT, "sim9", "it leads nowhere"))
        return "sim9"

    async def leave_rules(self) -> tuple[str, ...]:
        names = ("SIM-a", "SIM-b")
        for name in names:
            self._simulated.add_stray(self._network.name, Stray(StrayKind.RULES, name, "they are about nothing"))
        return names


class HostWorld:
    def __init__(self, isolation: Isolation, world: isolation_world.World) -> None:
        self.isolation = isolation
        self.proxy = world.proxy.address
        self.joined: list[Station] = []
        self._world = world
        self._port = f"{world.spec.bridge}x"

    async def network(self) -> SessionNetwork:
        return await asyncio.to_thread(lambda: self._world.network)

    async def join(self) -> None:
        name = f"joined{len(self.joined)}"
        self.joined.append(await asyncio.to_thread(lambda: self._world.start(name)))

    async def leave(self) -> None:
        await asyncio.to_thread(self._world.stop, self.joined.pop())

    async def lose(self) -> None:
        name = self._world.spec.name
        for hook, chain in chain_names(name, name).items():
            jump = ("-m", "comment", "--comment", f"{name}: {name}", "-j", chain)
            await self._run("iptables-legacy", "-w", "-D", hook, *jump)

    async def change(self) -> None:
        await self._run("ip", "link", "set", self._world.spec.bridge, "promisc", "on")
        await self._run("ip", "link", "set", self._world.spec.bridge, "promisc", "off")

    async def leave_port(self) -> str:
        await self._run("ip", "link", "add", self._port, "type", "veth", "peer", "name", f"{self._port}p")
        await self._run("ip", "link", "set", self._port, "master", self._world.spec.bridge)
        return self._port

    async def leave_rules(self) -> tuple[str, ...]:
        former = EastWestIsolation(self._world.spec.name)
        await former.ensure(await self._former(), self.proxy)
        await former.close()
        return tuple(chain_names(self._world.spec.name, (await self._former()).name).values())

    async def tidy(self) -> None:
        for _ in self.joined[:]:
            await self.leave()
        with contextlib.suppress(subprocess.CalledProcessError):
            await self._run("ip", "link", "delete", self._port)
        await self.isolation.remove(await self._former())
        await self.isolation.remove(await self.network())
        await self.isolation.close()

    async def _former(self) -> SessionNetwork:
        return replace(await self.network(), name=f"{self._world.spec.name}-former")

    @staticmethod
    async def _run(*argv: str) -> None:
        await asyncio.to_thread(isolation_world.run, *argv)


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
    made = HostWorld(EastWestIsolation(world.spec.name, settled_seconds=_SETTLED_SECONDS), world)
    try:
        yield made
    finally:
        await made.tidy()


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


async def test_a_change_is_heard_of(site: World) -> None:
    await rest(site)
    waits = asyncio.create_task(site.isolation.changed(60))
    await asyncio.sleep(0)
    await site.change()

    assert await waits


async def test_what_changes_between_two_calls_is_heard_of(site: World) -> None:
    await rest(site)
    for _ in range(3):
        await site.change()

    assert await site.isolation.changed(60)
    await rest(site)


async def test_a_call_that_is_cancelled_loses_no_change(site: World) -> None:
    await rest(site)
    waits = asyncio.create_task(site.isolation.changed(60))
    await asyncio.sleep(0)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    await site.change()

    assert await site.isolation.changed(60)


async def test_establishing_comes_to_rest(site: World) -> None:
    """Whoever establishes after each change does so a few times, and not for ever."""
    network = await site.network()
    await site.isolation.ensure(network, site.proxy)
    await rest(site)
    await site.isolation.ensure(network, site.proxy)

    await rest(site)


async def test_nothing_is_left_over_on_a_network_in_use(site: World) -> None:
    assert await site.isolation.strays(await site.network(), site.proxy) == ()
    await site.isolation.ensure(await site.network(), site.proxy)
    assert await site.isolation.strays(await site.network(), site.proxy) == ()


async def test_containers_that_start_and_stop_are_never_left_over(site: World) -> None:
    """Not even to somebody whose knowledge of them is older than they are."""
    before = await site.network()
    await site.isolation.ensure(before, site.proxy)

    async def come_and_go() -> None:
        for _ in range(_STARTS):
            await site.join()
            await site.leave()

    coming = asyncio.create_task(come_and_go())
    while not coming.done():
        assert await site.isolation.strays(before, site.proxy) == ()
    await coming
    assert await site.isolation.strays(await site.network(), site.proxy) == ()


async def test_a_port_that_leads_nowhere_is_left_over(site: World) -> None:
    await site.isolation.ensure(await site.network(), site.proxy)
    name = await site.leave_port()
    (stray,) = await found(site)
    assert (stray.kind, stray.name, bool(stray.reason)) == (StrayKind.PORT, name, True)
    # Looking has changed nothing.
    assert await found(site) == (stray,)

    await site.isolation.remove_stray(await site.network(), site.proxy, stray)

    assert await site.isolation.strays(await site.network(), site.proxy) == ()
    await site.isolation.remove_stray(await site.network(), site.proxy, stray)
    assert (await site.isolation.ensure(await site.network(), site.proxy)).holds


async def test_rules_of_a_former_network_are_left_over(site: World) -> None:
    await site.isolation.ensure(await site.network(), site.proxy)
    names = await site.leave_rules()
    strays = await found(site)
    assert {(stray.kind, stray.name) for stray in strays} == {(StrayKind.RULES, name) for name in names}

    for stray in strays:
        await site.isolation.remove_stray(await site.network(), site.proxy, stray)

    assert await site.isolation.strays(await site.network(), site.proxy) == ()
    assert (await site.isolation.verify(await site.network(), site.proxy)).holds


async def test_what_is_not_left_over_is_not_removed(site: World) -> None:
    network = await site.network()
    await site.isolation.ensure(network, site.proxy)
    for kind in StrayKind:
        for name in ("nothing", network.bridge, *chain_names(network.name, network.name).values()):
            await site.isolation.remove_stray(network, site.proxy, Stray(kind, name, ""))

    assert (await site.isolation.verify(network, site.proxy)).holds


async def rest(site: World) -> None:
    """Until nothing changes any more. On a host, interfaces of others may come and go."""
    async with asyncio.timeout(30):
        while await site.isolation.changed(0.2):
            pass


async def found(site: World) -> tuple[Stray, ...]:
    """What is left over, as soon as that can be told."""
    network = await site.network()
    async with asyncio.timeout(30):
        while not (strays := await site.isolation.strays(network, site.proxy)):  # noqa: ASYNC110 - time has to pass
            await asyncio.sleep(0.05)
    return strays
