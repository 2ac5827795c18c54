"""Owns what isolation stops and what it lets pass, tried with ordinary sockets between real containers."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import ExitStack
from ipaddress import IPv4Address

import pytest

from medforged.adapters.bridge.ports import PortIsolation
from medforged.adapters.iptables.firewall import Firewall
from medforged.adapters.iptables.rules import Scope
from medforged.adapters.isolation import EastWestIsolation
from tests.host.isolation_traffic import (
    EVERYTHING,
    SILENCE_SECONDS,
    answered_ports,
    connects,
    connects_as_other_user,
    lost_packets,
    pings,
    reaches,
    sends_datagram,
    silent,
)
from tests.host.isolation_world import Station, World, outside, run
from tests.host.tiny_image import docker

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.isolation_fixtures"]

METADATA = IPv4Address("169.254.169.254")
PORTS = frozenset(range(1, 1025))
IPV6 = {"TCP6", "UDP6", "ICMP6"}


@pytest.fixture
async def isolated(world: World, isolation: EastWestIsolation) -> World:
    report = await isolation.ensure(world.network, world.proxy.address)
    assert report.holds
    assert report.problems == ()
    return world


async def test_without_isolation_everything_passes(world: World) -> None:
    """What the other tests see stopped is stopped by isolation, not by the host or by the way of trying."""
    assert reaches(world.b, world.a, EVERYTHING) == EVERYTHING
    assert reaches(world.a, world.proxy, EVERYTHING) == EVERYTHING
    assert answered_ports(world.b, world.a.address, PORTS, PORTS) == PORTS


async def test_sessions_reach_nothing_of_each_other(isolated: World) -> None:
    assert reaches(isolated.b, isolated.a) == frozenset()
    assert reaches(isolated.a, isolated.b) == frozenset()
    assert answered_ports(isolated.b, isolated.a.address, (*PORTS, *range(1025, 65536, 97))) == frozenset()


async def test_sessions_reach_nothing_of_each_other_by_name(isolated: World) -> None:
    fetch = "busybox timeout 1 wget -q -O - http://$0:8080/healthz || echo unreachable"

    def fetched(source: Station) -> str:
        return docker("exec", source.name, "sh", "-c", fetch, isolated.a.name)

    assert str(isolated.a.address) in docker("exec", isolated.b.name, "nslookup", isolated.a.name, "127.0.0.11")
    assert fetched(isolated.b) == "unreachable"
    assert fetched(isolated.proxy) == "ok"


async def test_the_proxy_reaches_sessions(isolated: World) -> None:
    assert reaches(isolated.proxy, isolated.a, EVERYTHING - IPV6) == EVERYTHING - IPV6
    assert answered_ports(isolated.proxy, isolated.a.address, PORTS, PORTS) == PORTS


async def test_sessions_do_not_reach_the_proxy(isolated: World) -> None:
    assert reaches(isolated.a, isolated.proxy) == frozenset()


@pytest.mark.parametrize("layer", ["iptables", "bridge"])
async def test_each_layer_keeps_sessions_apart_alone(world: World, isolation: EastWestIsolation, layer: str) -> None:
    await isolation.ensure(world.network, world.proxy.address)
    if layer == "iptables":
        await asyncio.to_thread(PortIsolation().remove, world.network)
    else:
        await asyncio.to_thread(Firewall(world.spec.name).remove, world.spec.name)

    assert reaches(world.b, world.a) == frozenset()
    assert reaches(world.proxy, world.a, EVERYTHING - IPV6) >= EVERYTHING - IPV6

    await isolation.remove(world.network)
    assert reaches(world.b, world.a, EVERYTHING) == EVERYTHING


def test_sessions_do_not_reach_the_host(isolated: World) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("", 0)))
        ears = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        ears.bind(("", 0))
        ears.setblocking(False)
        for address in (isolated.spec.gateway, _host_addresses(isolated.spec.bridge)[0]):
            assert silent(isolated.a, address, listener.getsockname()[1])
            assert not sends_datagram(isolated.a, address, ears, SILENCE_SECONDS)
            assert not pings(isolated.a, address, SILENCE_SECONDS)
        assert not sends_datagram(isolated.a, "255.255.255.255", ears, SILENCE_SECONDS)
        assert answered_ports(isolated.a, isolated.spec.gateway, PORTS) == frozenset()


async def test_without_isolation_sessions_reach_the_host(world: World) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("", 0)))
        ears = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        ears.bind(("", 0))
        ears.setblocking(False)
        for address in (world.spec.gateway, _host_addresses(world.spec.bridge)[0]):
            assert connects(world.a, address, listener.getsockname()[1])
            assert sends_datagram(world.a, address, ears)
            assert pings(world.a, address)
        assert sends_datagram(world.a, "255.255.255.255", ears)


def test_only_root_of_the_host_reaches_sessions(isolated: World) -> None:
    assert connects(None, isolated.a.address, 8080)
    assert connects_as_other_user(isolated.a.address, 8080) == "ECONNREFUSED"


async def test_without_isolation_every_user_of_the_host_reaches_sessions(world: World) -> None:
    assert connects_as_other_user(world.a.address, 8080) == "connected"


def test_the_proxys_published_port_works(isolated: World) -> None:
    assert connects(None, "127.0.0.1", isolated.published)
    assert connects_as_other_user("127.0.0.1", isolated.published) == "connected"
    assert connects_as_other_user(isolated.spec.gateway, isolated.published) == "connected"
    with outside() as neighbour:
        assert connects(neighbour, _host_addresses(isolated.spec.bridge)[0], isolated.published)


def test_sessions_do_not_reach_the_proxys_published_port(isolated: World) -> None:
    for address in (isolated.spec.gateway, _host_addresses(isolated.spec.bridge)[0]):
        assert silent(isolated.a, address, isolated.published)


async def test_sessions_reach_the_outside_but_no_cloud_metadata(world: World, isolation: EastWestIsolation) -> None:
    with outside(str(METADATA)) as neighbour, ExitStack() as stack:
        listener = stack.enter_context(neighbour.run(lambda: socket.create_server(("", 0))))
        port = listener.getsockname()[1]
        assert connects(world.a, METADATA, port)

        await isolation.ensure(world.network, world.proxy.address)

        assert connects(world.a, neighbour.address, port)
        assert pings(world.a, neighbour.address)
        assert silent(world.a, METADATA, port)
        assert not pings(world.a, METADATA, SILENCE_SECONDS)


async def test_neighbours_of_the_host_reach_the_proxy_but_no_session(
    world: World, isolation: EastWestIsolation
) -> None:
    with outside() as neighbour, ExitStack() as stack:
        device = "mfiso" + neighbour.name.removeprefix("mfiso-")
        # Docker drops this too; here nothing but isolation may.
        rule = ("-i", device, "-o", world.spec.bridge, "-j", "ACCEPT")
        run("iptables", "-w", "-I", "DOCKER-USER", *rule)
        stack.callback(run, "iptables", "-w", "-D", "DOCKER-USER", *rule)
        assert connects(neighbour, world.a.address, 8080)

        await isolation.ensure(world.network, world.proxy.address)

        assert answered_ports(neighbour, world.a.address, PORTS) == frozenset()
        assert silent(neighbour, world.a.address, 8080)
        assert not pings(neighbour, world.a.address, SILENCE_SECONDS)
        assert connects(neighbour, world.proxy.address, 8080)


async def test_sessions_reach_no_other_bridge_of_the_host(world: World, isolation: EastWestIsolation) -> None:
    """A bridge that Docker knows nothing of, and so does not guard."""
    with outside() as neighbour, ExitStack() as stack:
        word = neighbour.name.removeprefix("mfiso-")
        device, bridge = f"mfiso{word}", f"mfisb{word}"
        gateway = IPv4Address(int(neighbour.address) - 1)
        run("ip", "link", "add", bridge, "type", "bridge")
        stack.callback(run, "ip", "link", "delete", bridge)
        run("ip", "address", "delete", f"{gateway}/30", "dev", device)
        run("ip", "address", "add", f"{gateway}/30", "dev", bridge)
        run("ip", "link", "set", device, "master", bridge)
        run("ip", "link", "set", bridge, "up")
        listener = stack.enter_context(neighbour.run(lambda: socket.create_server(("", 0))))
        assert connects(world.a, neighbour.address, listener.getsockname()[1])

        await isolation.ensure(world.network, world.proxy.address)

        assert silent(world.a, neighbour.address, listener.getsockname()[1])
        assert not pings(world.a, neighbour.address, SILENCE_SECONDS)


async def test_connections_of_the_proxy_and_the_host_live_on_while_isolation_is_established(
    world: World, isolation: EastWestIsolation
) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(world.a.run(lambda: socket.create_server((str(world.a.address), 0))))
        port = listener.getsockname()[1]
        far = (str(world.a.address), port)
        pairs = []
        for opener in (world.proxy.run, lambda call: call()):
            near = stack.enter_context(opener(lambda: socket.create_connection(far, timeout=5)))
            answer, _ = listener.accept()
            pairs.append((near, stack.enter_context(answer)))
        crossing = stack.enter_context(world.b.run(lambda: socket.create_connection(far, timeout=5)))
        stack.enter_context(listener.accept()[0])

        await isolation.ensure(world.network, world.proxy.address)

        for near, answer in pairs:
            answer.settimeout(5)
            near.sendall(b"there")
            assert answer.recv(16) == b"there"
            answer.sendall(b"back")
            assert near.recv(16) == b"back"
        # One between sessions from before ends at once: it is none of the proxy's.
        crossing.settimeout(0.4)
        crossing.sendall(b"there")
        with pytest.raises(TimeoutError):
            crossing.recv(16)


async def test_constant_change_neither_lets_anything_pass_nor_stops_the_proxy(
    world: World, isolation: EastWestIsolation
) -> None:
    """No moment without rules that stop, and none with rules that stop too much."""
    await isolation.ensure(world.network, world.proxy.address)
    await asyncio.to_thread(PortIsolation().remove, world.network)
    firewall = Firewall(world.spec.name)
    passed: list[int] = []
    done = threading.Event()

    def try_all_the_time() -> None:
        while not done.is_set():
            passed.extend(answered_ports(world.b, world.a.address, range(1, 65)))

    trying = threading.Thread(target=try_all_the_time)
    trying.start()
    try:
        with world.a.run(lambda: socket.create_server((str(world.a.address), 0), backlog=512)) as listener:
            for _ in range(40):
                # The rules are changed as they are when a bridge comes or goes.
                for others in (("mfiso-x",), ("mfiso-x", "mfiso-y"), ()):
                    await asyncio.to_thread(firewall.ensure, _scope(world, others))
                    assert lost_packets(world.proxy, world.a.address, listener.getsockname()[1]) == 0
                    listener.accept()[0].close()
    finally:
        done.set()
        trying.join()
    assert passed == []


def _scope(world: World, others: tuple[str, ...]) -> Scope:
    return Scope(world.spec.name, world.spec.bridge, world.spec.subnet, world.proxy.address, others)


def _host_addresses(bridge: str) -> list[IPv4Address]:
    """The host's IPv4 addresses on interfaces that are up, but not the bridge's own and loopback."""
    lines = run("ip", "-o", "-4", "address", "show", "up").splitlines()
    words = [line.split() for line in lines]
    return [IPv4Address(word[3].partition("/")[0]) for word in words if word[1] not in {"lo", bridge}]
