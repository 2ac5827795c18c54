"""Owns what is told to be left over of isolation on a real host, what never is, and that nothing else is removed.

On a host apart. An installation of these tests calls a port a stray after a twentieth of a second instead of half a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Collection
from dataclasses import replace

import pytest

from medforged.adapters.bridge.links import opened
from medforged.adapters.bridge.namespaces import new_namespace
from medforged.adapters.iptables.rules import chain_names
from medforged.adapters.isolation import EastWestIsolation
from medforged.domain.isolation import Stray, StrayKind
from tests.host.isolation_apart import ApartHost, process_apart, told_apart
from tests.host.isolation_world import run

pytestmark = pytest.mark.host

SETTLED_SECONDS = 0.05
FORMER = "mfap-former"
FAMILIES = ("iptables-legacy", "ip6tables-legacy")


@contextlib.asynccontextmanager
async def established(host: ApartHost, settled_seconds: float = SETTLED_SECONDS) -> AsyncIterator[EastWestIsolation]:
    isolation = EastWestIsolation(host.instance, settled_seconds=settled_seconds)
    await isolation.ensure(host.network, host.proxy_address)
    yield isolation
    await isolation.close()


async def told(isolation: EastWestIsolation, host: ApartHost) -> tuple[Stray, ...]:
    """What is told when everything there has been seen for long enough."""
    await isolation.strays(host.network, host.proxy_address)
    await asyncio.sleep(2 * SETTLED_SECONDS)
    return await isolation.strays(host.network, host.proxy_address)


async def remove(isolation: EastWestIsolation, host: ApartHost, *strays: Stray) -> None:
    for stray in strays:
        await isolation.remove_stray(host.network, host.proxy_address, stray)


def pair(host: ApartHost, name: str, *, into: int | None = None) -> None:
    """A port made by hand; its other end stays here, or goes into the namespace of a process."""
    there = () if into is None else ("netns", str(into))
    run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p", *there)
    run("ip", "link", "set", name, "master", host.bridge, "up")


def attach(host: ApartHost, name: str, namespace: int) -> None:
    """A port that leads into a namespace, given as a file descriptor."""
    with opened() as links:
        links.attach_namespace(name, links.bridge(host.bridge), namespace, "02:6d:00:00:00:09")


def ports(host: ApartHost) -> set[str]:
    return {link["ifname"] for link in json.loads(run("ip", "-json", "link", "show", "master", host.bridge))}


def interfaces() -> set[str]:
    return {link["ifname"] for link in json.loads(run("ip", "-json", "link"))}


def rules_without(chains: Collection[str]) -> list[str]:
    """All chains and rules of both families but those that name one of these chains."""
    lines = [line for family in FAMILIES for line in run(family, "-w", "-S").splitlines()]
    return [line for line in lines if not any(chain in line.split() for chain in chains)]


def test_a_port_whose_pair_is_here_is_one() -> None:
    async def story(host: ApartHost) -> None:
        async with established(host) as isolation:
            assert await told(isolation, host) == ()
            before = interfaces()
            pair(host, "mfaphand")

            found = await told(isolation, host)
            assert found == (Stray(StrayKind.PORT, "mfaphand", "its other end is on this host, not in a container"),)
            # Looking has changed nothing.
            assert interfaces() == before | {"mfaphand", "mfaphandp"}

            await remove(isolation, host, *found, *found)
            assert await told(isolation, host) == ()
            assert interfaces() == before

    told_apart(story)


def test_half_a_minute_has_to_pass() -> None:
    async def story(host: ApartHost) -> None:
        isolation = EastWestIsolation(host.instance)
        await isolation.ensure(host.network, host.proxy_address)
        pair(host, "mfaphand")

        assert await told(isolation, host) == ()
        await remove(isolation, host, Stray(StrayKind.PORT, "mfaphand", ""))
        assert "mfaphand" in ports(host)
        await isolation.close()

    told_apart(story)


def test_what_ensure_has_seen_counts() -> None:
    async def story(host: ApartHost) -> None:
        async with established(host) as isolation:
            pair(host, "mfaphand")
            await isolation.ensure(host.network, host.proxy_address)
            await asyncio.sleep(SETTLED_SECONDS)

            assert [stray.name for stray in await isolation.strays(host.network, host.proxy_address)] == ["mfaphand"]

    told_apart(story)


def test_a_device_that_is_somebodys_own_only_leaves_the_bridge() -> None:
    async def story(host: ApartHost) -> None:
        async with established(host) as isolation:
            run("ip", "tuntap", "add", "mfaptap", "mode", "tap")
            run("ip", "link", "set", "mfaptap", "master", host.bridge)

            found = await told(isolation, host)
            assert found == (Stray(StrayKind.PORT, "mfaptap", "it leads to no container: it is tun"),)
            await remove(isolation, host, *found)

            assert await told(isolation, host) == ()
            assert "mfaptap" in interfaces() - ports(host)

    told_apart(story)


def test_a_namespace_without_a_process_explains_nothing() -> None:
    async def story(host: ApartHost) -> None:
        async with established(host) as isolation:
            with new_namespace() as namespace:
                await asyncio.to_thread(attach, host, "mfapns", namespace)

                found = await told(isolation, host)
                assert found == (
                    Stray(StrayKind.PORT, "mfapns", "its other end is in a network namespace that no process is in"),
                )
                await remove(isolation, host, *found)
            assert "mfapns" not in interfaces()

    told_apart(story)


def test_a_process_that_the_engine_does_not_name_explains_its_port() -> None:
    """One that has only just been started, or is somebody else's, for as long as it lives."""

    async def story(host: ApartHost) -> None:
        async with established(host) as isolation:
            with process_apart() as process:
                pair(host, "mfapproc", into=process)
                assert await told(isolation, host) == ()
                await remove(isolation, host, Stray(StrayKind.PORT, "mfapproc", ""))
                assert "mfapproc" in ports(host)

    told_apart(story)


def test_a_port_that_is_taken_into_use_is_none_any_more() -> None:
    async def story(host: ApartHost) -> None:
        async with established(host) as isolation:
            pair(host, "mfaplate")
            (found,) = await told(isolation, host)
            with process_apart() as process:
                run("ip", "link", "set", "mfaplatep", "netns", str(process))
                await remove(isolation, host, found)
                assert "mfaplate" in ports(host)

    told_apart(story)


def test_ports_of_containers_are_none_whether_they_are_named_or_not() -> None:
    async def story(host: ApartHost) -> None:
        async with established(host) as isolation:
            before = ports(host)
            assert await told(isolation, host) == ()
            # As the engine answered before any of them was there.
            host.stations.clear()
            assert await told(isolation, host) == ()
            for name in before:
                await remove(isolation, host, Stray(StrayKind.PORT, name, ""))
            assert ports(host) == before

    told_apart(story)


def test_a_probe_leaves_none_and_is_none() -> None:
    async def story(host: ApartHost) -> None:
        async with established(host) as isolation:
            probing = asyncio.create_task(isolation.verify(host.network, host.proxy_address))
            looks = 0
            while not probing.done():
                assert await isolation.strays(host.network, host.proxy_address) == ()
                looks += 1
            assert (await probing).holds
            assert looks > 3
            assert await told(isolation, host) == ()

    told_apart(story)


def test_an_interface_elsewhere_is_not_touched() -> None:
    async def story(host: ApartHost) -> None:
        async with established(host) as isolation:
            pair(host, "mfaphand")
            run("ip", "link", "set", "mfaphand", "nomaster")
            await told(isolation, host)

            await remove(isolation, host, *(Stray(StrayKind.PORT, name, "") for name in interfaces()))
            assert "mfaphand" in interfaces()
            run("ip", "link", "delete", host.bridge)
            assert await told(isolation, host) == ()

    told_apart(story)


@pytest.mark.parametrize(
    "flush",
    [
        (),
        ("iptables-legacy -F",),
        ("iptables-legacy -F FORWARD", "iptables-legacy -F INPUT", "ip6tables-legacy -F"),
    ],
    ids=["whole", "one family flushed", "one jump left"],
)
def test_chains_of_a_former_network_go_and_all_others_stay(flush: tuple[str, ...]) -> None:
    async def story(host: ApartHost) -> None:
        former = replace(host.network, name=FORMER)
        async with established(host) as isolation:
            await isolation.ensure(former, host.proxy_address)
            # Another installation, that has a network of this name.
            neighbour = EastWestIsolation(f"{host.instance}-neighbour")
            await neighbour.ensure(former, host.proxy_address)
            for line in flush:
                program, *words = line.split()
                run(program, "-w", *words)
            await isolation.ensure(host.network, host.proxy_address)
            left = {*chain_names(host.instance, FORMER).values()}
            others = rules_without(left)
            assert others != rules_without(set())

            found = await isolation.strays(host.network, host.proxy_address)
            reason = f"it is about the network {FORMER}, which this installation does not have"
            assert found == tuple(Stray(StrayKind.RULES, name, reason) for name in sorted(left))
            await remove(isolation, host, *found, *found)

            assert await isolation.strays(host.network, host.proxy_address) == ()
            assert rules_without(left) == rules_without(set()) == others
            assert (await isolation.ensure(host.network, host.proxy_address)).changed == ()
            await neighbour.close()

    told_apart(story)


def test_chains_that_do_not_say_whose_they_are_stay() -> None:
    """Every jump is gone, so they do nothing; and the network's own chains are nobody's leftovers."""

    async def story(host: ApartHost) -> None:
        async with established(host) as isolation:
            await isolation.ensure(replace(host.network, name=FORMER), host.proxy_address)
            for family in FAMILIES:
                run(family, "-w", "-F")
            before = rules_without(set())

            assert await isolation.strays(host.network, host.proxy_address) == ()
            for instance in (host.instance, FORMER):
                for chain in chain_names(host.instance, instance).values():
                    await remove(isolation, host, Stray(StrayKind.RULES, chain, ""))
            assert rules_without(set()) == before

    told_apart(story)
