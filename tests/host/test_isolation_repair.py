"""Owns that both layers come back whatever has been done to them, go without a trace, and leave others' rules alone."""

from __future__ import annotations

import asyncio
import fcntl
import re
import shlex
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from medforged.adapters.bridge.links import opened
from medforged.adapters.iptables.bridged import SETTINGS_ROOT
from medforged.adapters.iptables.firewall import Firewall
from medforged.adapters.iptables.lock import LOCK_FILE
from medforged.adapters.iptables.rules import Scope, chain_names
from medforged.adapters.isolation import LAYERS, EastWestIsolation
from medforged.domain.containers import Endpoint, SessionNetwork
from medforged.domain.errors import IsolationError
from tests.fixtures.descriptors import open_files
from tests.host.isolation_traffic import EVERYTHING, reaches
from tests.host.isolation_world import World, make_network, run
from tests.host.tiny_image import docker

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.isolation_fixtures"]

FAMILIES = ("iptables-legacy", "ip6tables-legacy")


@pytest.fixture
def chains(world: World) -> dict[str, str]:
    """The chain of ours behind each built-in one."""
    return chain_names(world.spec.name, world.spec.name)


@pytest.fixture
def foreign() -> Iterator[str]:
    """A rule of somebody else in INPUT, by its comment."""
    rule = ("INPUT", "-i", "mfiso-none", "-m", "comment", "--comment", "mfiso foreign", "-j", "DROP")
    run("iptables-legacy", "-w", "-A", *rule)
    yield "mfiso foreign"
    run("iptables-legacy", "-w", "-D", *rule)


async def settled(isolation: EastWestIsolation, world: World) -> tuple[str, ...]:
    """What `ensure` still has to change once everything is in place. Bridges of others may come and go meanwhile."""
    changed: tuple[str, ...] = ("",)
    for _ in range(5):
        changed = (await isolation.ensure(world.network, world.proxy.address)).changed
        if not changed:
            break
    return changed


async def test_the_kernel_shows_the_rules_as_they_were_meant(world: World, chains: dict[str, str]) -> None:
    scope = Scope(world.spec.name, world.spec.bridge, world.spec.subnet, world.proxy.address, ("mfiso-other",))
    firewall = Firewall(world.spec.name)
    try:
        await asyncio.to_thread(firewall.ensure, scope)
        b, p, forward, inwards, outwards = (world.spec.bridge, world.proxy.address, *chains.values())
        reply = "-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY "
        assert rules(forward) == [
            f"-s {p}/32 -i {b} -o {b} -j RETURN",
            f"-d {p}/32 -i {b} -o {b} {reply}-j RETURN",
            f"-i {b} -o {b} -j DROP",
            f"! -s {world.spec.subnet} -i {b} -j DROP",
            f"-s {p}/32 -i {b} {reply}-j RETURN",
            f"-d 169.254.0.0/16 -i {b} -j DROP",
            f"-i {b} -o mfiso-other -j DROP",
            f"-o {b} {reply}-j RETURN",
            f"-d {p}/32 -o {b} -j RETURN",
            f"-o {b} -j DROP",
        ]
        assert rules(inwards) == [f"-i {b} {reply}-j RETURN", f"-i {b} -j DROP"]
        assert rules(outwards) == [
            f"-o {b} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
            f"-o {b} -m owner --uid-owner 0 -j RETURN",
            f"-d {p}/32 -o {b} -j RETURN",
            f"-o {b} -p tcp -j REJECT --reject-with tcp-reset",
            f"-o {b} -j REJECT --reject-with icmp-port-unreachable",
        ]
        assert rules(forward, "ip6tables-legacy") == [f"-i {b} -j DROP", f"-o {b} -j DROP"]
        assert rules(inwards, "ip6tables-legacy") == [f"-i {b} -j DROP"]
        assert rules(outwards, "ip6tables-legacy") == [f"-o {b} -j DROP"]
        for family in FAMILIES:
            for hook, chain in chains.items():
                assert jump_is_first(hook, chain, family)
    finally:
        await asyncio.to_thread(firewall.remove, world.spec.name)


async def test_nothing_is_changed_when_nothing_has_to_be(world: World, isolation: EastWestIsolation) -> None:
    first = await isolation.ensure(world.network, world.proxy.address)
    assert first.holds
    assert first.layers == LAYERS
    assert {f"bridge: port {port} isolated" for port in ports(world)} - {*first.changed} == {
        f"bridge: port {port_of(world, world.proxy.process_id)} isolated"
    }
    assert await settled(isolation, world) == ()


_JUMP = "-m comment --comment {label} -j"
# Beside FORWARD, which is flushed whole, only our own rules are touched: others may be at work on this host.
DAMAGE = {
    "FORWARD flushed": ["-F FORWARD"],
    "our chains flushed": ["-F {forward}", "-F {input}", "-F {output}"],
    "our chains deleted": [
        f"-D FORWARD {_JUMP} {{forward}}",
        f"-D INPUT {_JUMP} {{input}}",
        f"-D OUTPUT {_JUMP} {{output}}",
        *(f"-{how} {chain}" for how in "FX" for chain in ("{forward}", "{input}", "{output}")),
    ],
    "one rule deleted": ["-D {forward} 3"],
    "a rule put before ours": ["-I {forward} -j RETURN"],
    "a rule replaced": ["-R {forward} 3 -i {bridge} -o {bridge} -j ACCEPT"],
    "the jump deleted": [f"-D INPUT {_JUMP} {{input}}"],
    "the jump twice": ["-A FORWARD -j {forward}"],
    "the jump not first": ["-I FORWARD -i mfiso-none -j ACCEPT"],
    "the jump narrowed": [f"-D OUTPUT {_JUMP} {{output}}", "-A OUTPUT -o mfiso-none -j {output}"],
}
# What a test puts into the built-in chains, and `ensure` leaves there.
UNDO = {"the jump not first": "-D FORWARD -i mfiso-none -j ACCEPT"}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_the_packet_filter_is_repaired(
    world: World, isolation: EastWestIsolation, chains: dict[str, str], damage: str
) -> None:
    await isolation.ensure(world.network, world.proxy.address)
    before = saved(world)
    names = {hook.lower(): chain for hook, chain in chains.items()}
    foreign = [
        line for line in run("iptables-legacy", "-w", "-S", "FORWARD").splitlines()[1:] if "MEDFORGE-" not in line
    ]
    try:
        for line in DAMAGE[damage]:
            words = [word.format(bridge=world.spec.bridge, label=label(world), **names) for word in line.split()]
            run("iptables-legacy", "-w", *words)
        assert saved(world) != before

        report = await isolation.ensure(world.network, world.proxy.address)

        assert report.holds
        assert any(change.startswith("iptables: ") for change in report.changed)
        for hook, chain in chains.items():
            assert jump_is_first(hook, chain)
        assert reaches(world.b, world.a) == frozenset()
        assert await settled(isolation, world) == ()
    finally:
        if damage in UNDO:
            run("iptables-legacy", "-w", *UNDO[damage].split())
        for line in foreign if damage == "FORWARD flushed" else ():
            run("iptables-legacy", "-w", *shlex.split(line))
    assert sorted(saved(world)) == sorted(before)


async def test_ipv6_is_repaired(world: World, isolation: EastWestIsolation, chains: dict[str, str]) -> None:
    await isolation.ensure(world.network, world.proxy.address)
    jump = ("-m", "comment", "--comment", label(world), "-j", chains["FORWARD"])
    run("ip6tables-legacy", "-w", "-D", "FORWARD", *jump)
    run("ip6tables-legacy", "-w", "-F", chains["OUTPUT"])

    report = await isolation.ensure(world.network, world.proxy.address)

    assert {change for change in report.changed if change.startswith("ip6tables: ")} == {
        f"ip6tables: jump from FORWARD to {chains['FORWARD']} set",
        f"ip6tables: rules of chain {chains['OUTPUT']} restored",
    }


async def test_bridge_ports_are_repaired(world: World, isolation: EastWestIsolation) -> None:
    await isolation.ensure(world.network, world.proxy.address)
    proxys, sessions = port_of(world, world.proxy.process_id), port_of(world, world.a.process_id)
    await asyncio.to_thread(set_isolated, world, sessions, isolated=False)
    await asyncio.to_thread(set_isolated, world, proxys, isolated=True)

    report = await isolation.ensure(world.network, world.proxy.address)

    assert {change for change in report.changed if change.startswith("bridge: ")} == {
        f"bridge: port {sessions} isolated",
        f"bridge: port {proxys} opened for the proxy",
    }
    assert not ports(world)[proxys]
    assert all(isolated for name, isolated in ports(world).items() if name != proxys)


async def test_a_session_that_joins_is_covered(world: World, isolation: EastWestIsolation) -> None:
    await isolation.ensure(world.network, world.proxy.address)
    joined = world.start("joined")
    try:
        # The rules are about the bridge, so they cover it before anybody knows of it.
        assert reaches(joined, world.a) == frozenset()
        report = await isolation.ensure(world.network, world.proxy.address)
        assert f"bridge: port {port_of(world, joined.process_id)} isolated" in report.changed
    finally:
        world.stop(joined)


async def test_an_unknown_port_is_isolated(world: World, isolation: EastWestIsolation) -> None:
    name = "mfiso" + world.spec.name[-4:] + "u"
    run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    try:
        run("ip", "link", "set", name, "master", world.spec.bridge)
        await isolation.ensure(world.network, world.proxy.address)
        assert ports(world)[name]
    finally:
        run("ip", "link", "delete", name)


async def test_a_process_that_is_not_the_proxy_is_not_taken_for_it(world: World, isolation: EastWestIsolation) -> None:
    """The engine's answer is old, and the proxy's process id has gone to a session, to the host, or to nobody."""
    for other in (world.a.process_id, 1, 4194305):
        stale = replace(world.network, endpoints=(Endpoint("stale", world.proxy.address, other),))

        report = await isolation.ensure(stale, world.proxy.address)

        assert report.holds
        assert [problem for problem in report.problems if "the proxy reaches no session" in problem]
        assert all(ports(world).values())
    report = await isolation.ensure(world.network, world.proxy.address)
    assert report.problems == ()
    assert not ports(world)[port_of(world, world.proxy.process_id)]


async def test_without_a_proxy_every_port_is_isolated(world: World, isolation: EastWestIsolation) -> None:
    alone = tuple(one for one in world.network.endpoints if one.address != world.proxy.address)

    report = await isolation.ensure(replace(world.network, endpoints=alone), world.proxy.address)

    assert report.holds
    assert all(ports(world).values())


async def test_a_network_made_anew_is_covered(world: World, isolation: EastWestIsolation) -> None:
    """Also under another bridge and with other addresses: its chains are its own all the same."""
    spec = replace(world.spec, name=f"{world.spec.name}-n", bridge=f"{world.spec.bridge}n"[:15])
    spec = replace(spec, subnet=IPv4Network("172.28.46.0/25"), gateway=IPv4Network("172.28.46.0/25")[1])
    network = SessionNetwork(spec.name, spec.bridge, spec.subnet, spec.gateway, ())
    make_network(replace(spec, dynamic_range=IPv4Network("172.28.46.64/26")))
    try:
        await isolation.ensure(network, spec.subnet[2])
        docker("network", "rm", spec.name)
        with pytest.raises(IsolationError, match=f"no bridge {spec.bridge}; recreate"):
            await isolation.ensure(network, spec.subnet[2])

        again = replace(spec, subnet=IPv4Network("172.28.46.128/25"), gateway=IPv4Network("172.28.46.128/25")[1])
        again = replace(again, bridge=f"{world.spec.bridge}m"[:15])
        make_network(replace(again, dynamic_range=IPv4Network("172.28.46.192/26")))
        network = SessionNetwork(again.name, again.bridge, again.subnet, again.gateway, ())
        report = await isolation.ensure(network, again.subnet[2])

        assert report.holds
        assert (await isolation.verify(network, again.subnet[2])).problems == ()
        assert f"-i {spec.bridge} " not in "\n".join(saved(world))
    finally:
        await isolation.remove(network)
        docker("network", "rm", spec.name)
    await isolation.remove(network)


async def test_removal_leaves_no_trace(
    world: World, isolation: EastWestIsolation, chains: dict[str, str], foreign: str
) -> None:
    before = saved(world)
    assert any(foreign in line for line in before)
    await isolation.ensure(world.network, world.proxy.address)
    run("iptables-legacy", "-w", "-A", "FORWARD", "-j", chains["FORWARD"])
    assert saved(world) != before

    await isolation.remove(world.network)
    await isolation.remove(world.network)

    assert saved(world) == before
    assert not any(ports(world).values())
    assert reaches(world.b, world.a, EVERYTHING) == EVERYTHING


async def test_layers_outlive_the_daemon_and_are_taken_over(world: World, isolation: EastWestIsolation) -> None:
    await isolation.ensure(world.network, world.proxy.address)
    await isolation.close()
    assert reaches(world.b, world.a) == frozenset()

    restarted = EastWestIsolation(world.spec.name)
    try:
        assert await settled(restarted, world) == ()
        await restarted.remove(world.network)
        assert reaches(world.b, world.a, EVERYTHING) == EVERYTHING
    finally:
        await restarted.close()


async def test_networks_and_installations_do_not_disturb_each_other(world: World, isolation: EastWestIsolation) -> None:
    neighbour = EastWestIsolation(f"{world.spec.name}-neighbour")
    try:
        for one in (isolation, neighbour, isolation, neighbour):
            await one.ensure(world.network, world.proxy.address)
        assert await settled(isolation, world) == ()
        assert await settled(neighbour, world) == ()
        await neighbour.remove(world.network)
        # Bridge ports belong to both; chains do not.
        repaired = await changes(isolation, world)
        assert [change for change in repaired if change.startswith("bridge: ")]
        assert not [change for change in repaired if "jump" in change or "made" in change]
        assert reaches(world.b, world.a) == frozenset()
    finally:
        await neighbour.remove(world.network)


async def test_others_who_change_the_tables_meanwhile_lose_nothing(world: World) -> None:
    rounds, rule = 60, ("-i", "mfiso-none", "-j", "DROP")
    scope = Scope(world.spec.name, world.spec.bridge, world.spec.subnet, world.proxy.address)
    firewall = Firewall(world.spec.name)

    def others() -> None:
        for _ in range(rounds):
            run("iptables-legacy", "-w", "-A", "INPUT", *rule)

    try:
        other = asyncio.create_task(asyncio.to_thread(others))
        count = 0
        while not other.done():
            await asyncio.to_thread(firewall.ensure, replace(scope, other_bridges=(f"mfiso-{count}",)))
            count += 1
        await other
        assert count > 5
        assert run("iptables-legacy", "-w", "-S", "INPUT").count("mfiso-none") == rounds
    finally:
        await asyncio.to_thread(firewall.remove, world.spec.name)
        for _ in range(run("iptables-legacy", "-w", "-S", "INPUT").count("mfiso-none")):
            run("iptables-legacy", "-w", "-D", "INPUT", *rule)


async def test_interfaces_that_come_and_go_meanwhile_do_no_harm(world: World, isolation: EastWestIsolation) -> None:
    """A list of interfaces that changes while it is read can lack some of them."""
    name, done = f"mfiso{world.spec.name[-4:]}c", threading.Event()

    def churn() -> None:
        while not done.is_set():
            for _ in range(8):
                run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
                run("ip", "link", "delete", name)

    network = world.network
    await isolation.ensure(network, world.proxy.address)
    churning = asyncio.create_task(asyncio.to_thread(churn))
    try:
        for _ in range(100):
            report = await isolation.ensure(network, world.proxy.address)
            assert report.holds
            assert report.problems == ()
            assert not [change for change in report.changed if change.startswith("bridge: ")]
    finally:
        done.set()
        await churning


async def test_a_lock_that_is_held_is_waited_for(world: World, isolation: EastWestIsolation) -> None:
    with LOCK_FILE.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ensuring = asyncio.create_task(isolation.ensure(world.network, world.proxy.address))
        await until_waiting_for_lock()
        assert not ensuring.done()
    assert (await ensuring).holds


async def test_calls_at_once_all_find_it_in_place(world: World, isolation: EastWestIsolation) -> None:
    network = world.network
    reports = await asyncio.gather(*(isolation.ensure(network, world.proxy.address) for _ in range(16)))
    assert all(report.holds for report in reports)
    assert await settled(isolation, world) == ()


def test_bridged_packets_are_shown_to_iptables() -> None:
    """As `ensure` has left it; switching it off would concern every bridge of the host."""
    for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
        assert (SETTINGS_ROOT / name).read_text().strip() == "1"


async def test_long_use_leaks_nothing(world: World, isolation: EastWestIsolation) -> None:
    # Threads and files that other tests have left end when they like: what counts is what is there since.
    others = set(threading.enumerate())
    await isolation.ensure(world.network, world.proxy.address)
    network = world.network
    before = open_files()
    for _ in range(100):
        await isolation.ensure(network, world.proxy.address)
    assert open_files() - before == Counter()
    async with asyncio.timeout(10):
        while set(threading.enumerate()) - others:  # noqa: ASYNC110 - a thread that has answered needs a moment to end
            await asyncio.sleep(0.001)


async def changes(isolation: EastWestIsolation, world: World) -> tuple[str, ...]:
    return (await isolation.ensure(world.network, world.proxy.address)).changed


def rules(chain: str, family: str = "iptables-legacy") -> list[str]:
    """The chain's rules as the iptables program reads them, without their comments."""
    lines = run(family, "-w", "-S", chain).splitlines()[1:]
    return [re.sub(r'-m comment --comment ("[^"]*"|\S+) ', "", line.removeprefix(f"-A {chain} ")) for line in lines]


def label(world: World) -> str:
    """The comment of the jumps to our chains."""
    return f"{world.spec.name}: {world.spec.name}"


def jump_is_first(hook: str, chain: str, family: str = "iptables-legacy") -> bool:
    """Whether only jumps of other installations and networks stand before it, and it stands there once."""
    targets = [line.rpartition(" ")[2] for line in run(family, "-w", "-S", hook).splitlines()[1:]]
    ahead = targets[: targets.index(chain)]
    return all(target.startswith("MEDFORGE-") for target in ahead) and targets.count(chain) == 1


def saved(world: World) -> list[str]:
    """Our legacy rules and those of tests, but not what comes and goes on a host with others at work: their rules, and
    ours about their bridges."""
    tag = chain_names(world.spec.name, world.spec.name)["FORWARD"].removesuffix("FORWARD")
    lines = [line for family in FAMILIES for line in run(f"{family}-save").splitlines()]
    return [
        re.sub(r" \[\d+:\d+\]", "", line)
        for line in lines
        if (tag in line or "mfiso-none" in line) and "no other network of this host" not in line
    ]


def ports(world: World) -> dict[str, bool]:
    """Name and flag of each port of the bridge, from where the kernel shows them without netlink."""
    place = Path(f"/sys/class/net/{world.spec.bridge}/brif")
    return {port.name: (port / "isolated").read_text().strip() == "1" for port in place.iterdir()}


def port_of(world: World, process_id: int) -> str:
    """The port whose other end is the container's eth0, by the interface numbers both ends name."""
    index = int(Path(f"/proc/{process_id}/root/sys/class/net/eth0/iflink").read_text())
    return next(name for name in ports(world) if int(Path(f"/sys/class/net/{name}/ifindex").read_text()) == index)


def set_isolated(world: World, name: str, *, isolated: bool) -> None:
    with opened() as links:
        port = next(port for port in links.bridge(world.spec.bridge).ports if port.name == name)
        links.isolate(port, isolated=isolated)


async def until_waiting_for_lock() -> None:
    """Until another thread of this process has the lock file open beside the test's own descriptor."""
    async with asyncio.timeout(10):
        while open_files()[str(LOCK_FILE)] < 2:  # noqa: ASYNC110 - it is the kernel's, and sets no event of ours
            await asyncio.sleep(0.005)
