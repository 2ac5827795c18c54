"""Owns that the live probe sees what is broken, says when it has seen nothing, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medforged.adapters.bridge.ports import PortIsolation
from medforged.adapters.iptables.firewall import Firewall
from medforged.adapters.iptables.rules import chain_names
from medforged.adapters.isolation import LAYERS, EastWestIsolation
from medforged.adapters.isolation.bench import Bench, ProbePlace, probe_place
from medforged.adapters.isolation.probe import Probe
from medforged.domain.errors import IsolationError
from medforged.domain.isolation import IsolationReport
from tests.fixtures.descriptors import open_files
from tests.host.isolation_world import World, run

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.isolation_fixtures"]

EAST_WEST = (
    "TCP to port 8080, TCP to port 22, UDP to port 8080, UDP to port 53, ICMP, IGMP, IP in IP, GRE, ESP, SCTP, "
    "IP protocol 253, UDP to the network's broadcast address, UDP broadcast, UDP multicast, IPv6 TCP to port 8080, "
    "IPv6 UDP to port 8080, ICMPv6, IPv6 UDP multicast"
)
TO_HOST = (
    "UDP, UDP to the network's broadcast address, UDP broadcast, UDP multicast, IPv6 UDP multicast, IPv6 UDP, TCP, ICMP"
)


@pytest.fixture
async def isolated(world: World, isolation: EastWestIsolation) -> EastWestIsolation:
    await isolation.ensure(world.network, world.proxy.address)
    return isolation


async def verify(isolation: EastWestIsolation, world: World) -> IsolationReport:
    return await isolation.verify(world.network, world.proxy.address)


async def test_what_holds_is_seen_to_hold(world: World, isolated: EastWestIsolation) -> None:
    for _ in range(5):
        assert await verify(isolated, world) == IsolationReport(True, LAYERS)


async def test_with_nothing_in_place_everything_is_seen(world: World, isolation: EastWestIsolation) -> None:
    """So each frame of the probe is one that a host without isolation delivers."""
    report = await verify(isolation, world)

    assert not report.holds
    assert report.problems[:3] == (
        f"iptables does not keep sessions from the host: {TO_HOST} reached it",
        f"iptables does not keep sessions apart: {EAST_WEST} passed from port to port",
        "iptables does not keep other users of this host from sessions: TCP connected",
    )
    # The sessions' own ports are read, not probed.
    assert len(report.problems) == 5
    assert all(problem.startswith("bridge: port ") for problem in report.problems[3:])


async def test_without_the_packet_filter_only_that_is_seen(world: World, isolated: EastWestIsolation) -> None:
    await asyncio.to_thread(Firewall(world.spec.name).remove, world.spec.name)

    report = await verify(isolated, world)

    assert len(report.problems) == 3
    assert all(problem.startswith("iptables does not keep ") for problem in report.problems)


async def test_without_port_isolation_only_that_is_seen(world: World, isolated: EastWestIsolation) -> None:
    await asyncio.to_thread(PortIsolation().remove, world.network)

    report = await verify(isolated, world)

    assert not report.holds
    assert len(report.problems) == 2
    assert all(problem.endswith(" is not isolated") for problem in report.problems)


@pytest.mark.parametrize(
    ("chain", "rule", "seen"),
    [
        ("FORWARD", "-p udp --dport 53", "UDP to port 53 passed from port to port"),
        ("FORWARD", "-p sctp", "SCTP passed from port to port"),
        ("FORWARD", "-p icmp", "ICMP passed from port to port"),
        (
            "INPUT",
            "-p udp -m addrtype --dst-type BROADCAST",
            "UDP to the network's broadcast address, UDP broadcast reached it",
        ),
        ("INPUT", "-p tcp", "TCP reached it"),
        ("INPUT", "-p icmp", "ICMP reached it"),
        ("OUTPUT", "-p tcp", "other users of this host from sessions: TCP connected"),
    ],
)
async def test_a_single_hole_is_seen(
    world: World, isolated: EastWestIsolation, chain: str, rule: str, seen: str
) -> None:
    own = chain_names(world.spec.name, world.spec.name)[chain]
    run("iptables-legacy", "-w", "-I", own, *rule.split(), "-j", "RETURN")

    (problem,) = (await verify(isolated, world)).problems

    assert problem.endswith(seen)


async def test_a_hole_in_ipv6_is_seen(world: World, isolated: EastWestIsolation) -> None:
    own = chain_names(world.spec.name, world.spec.name)["FORWARD"]
    run("ip6tables-legacy", "-w", "-I", own, "-p", "udp", "-j", "RETURN")

    (problem,) = (await verify(isolated, world)).problems

    assert problem.endswith(": IPv6 UDP to port 8080, IPv6 UDP multicast passed from port to port")


async def test_flags_that_have_no_effect_are_seen(world: World, isolated: EastWestIsolation) -> None:
    """As on a kernel that takes the flag and does nothing with it."""

    class Unaffected(Bench):
        def isolate(self, *, near: bool, far: bool) -> None:
            pass

    class OnUnaffectedPorts(Probe):
        def _bench(self, stack: contextlib.ExitStack) -> Bench:
            return Unaffected(stack, world.network, place(world))

    probe = OnUnaffectedPorts(world.network, world.proxy.address, place(world), lambda: False)

    (problem,) = await asyncio.to_thread(probe.run)
    passed = "a frame of no protocol, ARP, UDP behind a VLAN tag, UDP under the proxy's address"
    assert problem == f"isolated ports of the bridge are not apart: {passed} passed between them"


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        (
            "FORWARD -i {bridge} -o {bridge} -s {proxy} -p udp",
            "the proxy cannot reach sessions: UDP from {proxy} did not arrive",
        ),
        (
            "OUTPUT -o {bridge} -p tcp",
            "the probe is void: root on this host cannot connect to it (no answer within 0.5 s)",
        ),
    ],
)
async def test_what_must_pass_and_does_not_is_seen(
    world: World, isolated: EastWestIsolation, rule: str, seen: str
) -> None:
    """Somebody else's rule: ours are in place, and yet nobody may say that all is well."""
    words = rule.format(bridge=world.spec.bridge, proxy=world.proxy.address).split()
    run("iptables-legacy", "-w", "-A", *words, "-j", "DROP")
    try:
        report = await verify(isolated, world)
    finally:
        run("iptables-legacy", "-w", "-D", *words, "-j", "DROP")

    assert not report.holds
    (problem,) = report.problems
    assert problem.startswith(seen.format(proxy=world.proxy.address))


async def test_a_probe_whose_frames_go_nowhere_is_void(world: World, isolated: EastWestIsolation) -> None:
    """Nothing arrives, so nothing seems to leak: that is no proof."""
    rule = ("FORWARD", "-o", place(world).far_port, "-j", "DROP")
    run("ebtables", "-A", *rule)
    try:
        report = await verify(isolated, world)
    finally:
        run("ebtables", "-D", *rule)

    assert not report.holds
    assert "the probe is void: a frame between two open ports of the bridge did not arrive" in report.problems
    assert "the probe is void: a frame from an open port to an isolated one did not arrive" in report.problems


async def test_a_bridge_that_is_gone_cannot_be_probed(world: World, isolated: EastWestIsolation) -> None:
    with pytest.raises(IsolationError, match="no bridge mfiso-none"):
        await isolated.verify(replace(world.network, bridge="mfiso-none"), world.proxy.address)


async def test_nothing_is_left_behind(world: World, isolated: EastWestIsolation) -> None:
    await verify(isolated, world)
    before = traces()
    for _ in range(5):
        await verify(isolated, world)
    assert traces() - before == Counter()


async def test_what_is_left_of_a_probe_that_was_killed_is_removed(world: World, isolated: EastWestIsolation) -> None:
    """Twice: ports that went with their process, and one that is still there."""
    program = (
        "import asyncio, sys\n"
        "from tests.host.isolation_world import *\n"
        "from medforged.adapters.isolation import EastWestIsolation\n"
        "from ipaddress import IPv4Address, IPv4Network\n"
        "from medforged.domain.containers import SessionNetwork\n"
        "name, bridge, subnet = sys.argv[1:]\n"
        "subnet = IPv4Network(subnet)\n"
        "network = SessionNetwork(name, bridge, subnet, subnet[1], ())\n"
        "async def main():\n"
        "    isolation = EastWestIsolation(name)\n"
        "    while True:\n"
        "        await isolation.verify(network, subnet[2])\n"
        "asyncio.run(main())\n"
    )
    spec = world.spec
    argv = [sys.executable, "-c", program, spec.name, spec.bridge, str(spec.subnet)]
    probing = await asyncio.create_subprocess_exec(*argv, cwd=Path(__file__).parents[2])
    try:
        await until(lambda: bool(probe_ports()))
    finally:
        probing.kill()
        await probing.wait()
    await until(lambda: not probe_ports())

    name = place(world).near_port
    run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}x")
    assert (await verify(isolated, world)).holds
    assert not probe_ports()


async def test_a_cancelled_probe_has_removed_everything(world: World, isolated: EastWestIsolation) -> None:
    await verify(isolated, world)
    before = traces()
    for _ in range(5):
        probing = asyncio.create_task(verify(isolated, world))
        await until(lambda: bool(probe_ports()))
        probing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await probing
        assert traces() - before == Counter(), "when the caller is told, everything is gone"
    assert (await verify(isolated, world)).holds


async def test_repair_goes_on_while_probing(world: World, isolated: EastWestIsolation) -> None:
    network = world.network
    probing = asyncio.create_task(isolated.verify(network, world.proxy.address))
    count = 0
    while not probing.done():
        report = await isolated.ensure(network, world.proxy.address)
        assert not [change for change in report.changed if change.startswith("bridge: port mfp")]
        count += 1
    assert (await probing).problems == ()
    assert count > 3


async def test_probes_at_once_take_turns(world: World, isolated: EastWestIsolation) -> None:
    network = world.network
    reports = await asyncio.gather(*(isolated.verify(network, world.proxy.address) for _ in range(4)))
    assert all(report.holds for report in reports)


async def test_sessions_are_not_disturbed(world: World, isolated: EastWestIsolation) -> None:
    """A connection of the proxy keeps its pace, and no datagram of a probe ever gets to a session's sockets."""
    ears = world.a.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    listener = world.a.run(lambda: socket.create_server((str(world.a.address), 0)))
    with ears, listener:
        ears.bind(("", 8080))
        ears.setblocking(False)
        far = (str(world.a.address), listener.getsockname()[1])
        with world.proxy.run(lambda: socket.create_connection(far, timeout=5)) as near, listener.accept()[0] as answer:
            probing = asyncio.create_task(verify(isolated, world))
            count = 0
            while not probing.done():
                near.sendall(b"there")
                assert await asyncio.to_thread(answer.recv, 16) == b"there"
                count += 1
            assert (await probing).holds
            assert count > 10
        with pytest.raises(BlockingIOError):
            ears.recv(64)


def place(world: World) -> ProbePlace:
    """Where the installation's probes stand."""
    return probe_place(world.spec.name, world.network, world.proxy.address)


def probe_ports() -> list[str]:
    return [name for _, name in socket.if_nameindex() if name.startswith("mfp")]


def traces() -> Counter[str]:
    """What a probe could leave: its interfaces, namespaces and sockets that a descriptor holds, threads."""
    inside = [thread.name for thread in threading.enumerate() if thread.name == "medforge-namespace"]
    return open_files() + Counter(probe_ports()) + Counter(inside)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition of the kernel's. Raises TimeoutError."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is the kernel's, and sets no event of ours
            await asyncio.sleep(0.001)
