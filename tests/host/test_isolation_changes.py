"""Owns that a loss is heard of at once where the kernel tells, that everything comes back after any loss, and that
what the daemon does itself is not taken for one. On a host apart, whose tables can be flushed whole."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medforged.adapters.bridge.changes import LinkChanges, subscribed
from medforged.adapters.iptables.rules import chain_names
from medforged.adapters.isolation import EastWestIsolation
from tests.host.isolation_apart import ApartHost, told_apart
from tests.host.isolation_traffic import reaches
from tests.host.isolation_world import run

pytestmark = pytest.mark.host

HEARD_SECONDS = 0.5
QUIET_SECONDS = 0.3
# The kernel tells of a bridge's carrier up to a second late.
LATE_SECONDS = 1.5
MANY = 10_000
# What the proxy may, and whoever comes when the IPv4 rules are gone.
OPENED = frozenset({"TCP 8080", "TCP", "UDP", "ICMP"})
SO_RCVBUFFORCE = 33
LEGACY = ("iptables-legacy", "ip6tables-legacy")


async def established(host: ApartHost) -> EastWestIsolation:
    """In place, and nothing has changed since."""
    isolation = EastWestIsolation(host.instance)
    await settle(isolation, host)
    assert (await isolation.verify(host.network, host.proxy_address)).holds
    return isolation


async def settle(isolation: EastWestIsolation, host: ApartHost) -> int:
    """Assert after each change as a daemon does, until nothing changes any more. Returns how often."""
    times = 0
    async with asyncio.timeout(20):
        while await isolation.changed(QUIET_SECONDS):
            await isolation.ensure(host.network, host.proxy_address)
            times += 1
    return times


async def heard(isolation: EastWestIsolation, act: Callable[[], object]) -> float:
    """How long after an act somebody who waits has heard of it, in seconds."""
    waits = asyncio.create_task(isolation.changed(30))
    await asyncio.sleep(0.05)
    assert not waits.done()
    began = time.monotonic()
    acting = asyncio.create_task(asyncio.to_thread(act))
    assert await waits
    took = time.monotonic() - began
    await acting
    return took


async def everything_is_back(isolation: EastWestIsolation, host: ApartHost) -> None:
    assert await asyncio.to_thread(reaches, host.b, host.a) == frozenset()
    assert await asyncio.to_thread(reaches, host.proxy, host.a, OPENED) >= OPENED
    assert flags(host) == {one.name: one is not host.proxy for one in host.stations}
    assert (await isolation.verify(host.network, host.proxy_address)).problems == ()
    assert (await isolation.ensure(host.network, host.proxy_address)).changed == ()


def flags(host: ApartHost) -> dict[str, bool]:
    """Which ports the bridge has, and which of them are isolated, as the `bridge` program reads it."""
    lines = run("bridge", "-d", "link", "show").splitlines()
    ports: dict[str, bool] = {}
    name = ""
    for line in lines:
        words = line.split()
        if not line.startswith(" "):
            name = words[1].partition("@")[0] if f"master {host.bridge}" in line else ""
        elif name and "isolated" in words:
            ports[name] = words[words.index("isolated") + 1] == "on"
    return ports


def clear_flag(host: ApartHost) -> None:
    run("bridge", "link", "set", "dev", host.a.name, "isolated", "off")


def move_off(host: ApartHost) -> None:
    run("ip", "link", "set", host.a.name, "nomaster")


def move_back(host: ApartHost) -> None:
    run("ip", "link", "set", host.a.name, "master", host.bridge)


def make_anew(host: ApartHost) -> None:
    """As when a network is removed and made again while its containers run."""
    run("ip", "link", "delete", host.bridge)
    host.make_bridge()
    for one in host.stations:
        run("ip", "link", "set", one.name, "master", host.bridge)


def make_other_bridge(_host: ApartHost) -> None:
    run("ip", "link", "add", "mfap9", "type", "bridge")


@pytest.mark.parametrize(
    ("loss", "repaired"),
    [
        (clear_flag, "bridge: port mfap128 isolated"),
        (make_anew, "bridge: port mfap129 isolated"),
        (make_other_bridge, "iptables: rules of chain "),
    ],
)
def test_a_loss_that_the_kernel_tells_of_is_heard_and_repaired(
    loss: Callable[[ApartHost], None], repaired: str
) -> None:
    async def story(host: ApartHost) -> None:
        isolation = await established(host)
        assert await heard(isolation, lambda: loss(host)) < HEARD_SECONDS
        report = await isolation.ensure(host.network, host.proxy_address)
        assert [change for change in report.changed if change.startswith(repaired)]
        await everything_is_back(isolation, host)
        await isolation.close()

    told_apart(story)


def test_a_port_that_was_moved_off_and_back_is_isolated_again() -> None:
    async def story(host: ApartHost) -> None:
        isolation = await established(host)
        assert await heard(isolation, lambda: move_off(host)) < HEARD_SECONDS
        await settle(isolation, host)
        assert host.a.name not in flags(host)

        assert await heard(isolation, lambda: move_back(host)) < HEARD_SECONDS
        report = await isolation.ensure(host.network, host.proxy_address)

        assert report.changed == (f"bridge: port {host.a.name} isolated",)
        await everything_is_back(isolation, host)
        await isolation.close()

    told_apart(story)


@pytest.mark.parametrize(
    "flush",
    [
        ("iptables -F", "iptables -X"),
        ("iptables-legacy -F",),
        ("iptables-legacy -F", "iptables-legacy -X"),
        ("ip6tables-legacy -F", "ip6tables-legacy -X"),
        tuple(f"{program} -{how}" for program in ("iptables", "ip6tables", *LEGACY) for how in "FX"),
        ("iptables-legacy -D OUTPUT -m comment --comment {label} -j {output}",),
    ],
    ids=["nft", "legacy", "legacy with chains", "legacy IPv6", "all", "a jump"],
)
def test_after_any_flush_everything_is_back(flush: tuple[str, ...]) -> None:
    async def story(host: ApartHost) -> None:
        isolation = EastWestIsolation(host.instance)
        await isolation.ensure(host.network, host.proxy_address)
        output = chain_names(host.instance, host.network.name)["OUTPUT"]
        label = f"{host.instance}: {host.network.name}"
        for line in flush:
            program, *words = line.split()
            run(program, "-w", *(word.format(label=label, output=output) for word in words))

        report = await isolation.ensure(host.network, host.proxy_address)

        # What is flushed with nft is Docker's and the host's, not ours.
        assert bool(report.changed) == any("legacy" in line for line in flush)
        await everything_is_back(isolation, host)
        await isolation.close()

    told_apart(story)


def test_a_flush_opens_what_is_said_to_be_closed() -> None:
    """Without the repair, and without ports that are isolated too, the tests above would see it."""

    async def story(host: ApartHost) -> None:
        isolation = EastWestIsolation(host.instance)
        await isolation.ensure(host.network, host.proxy_address)
        await isolation.close()
        run("iptables-legacy", "-w", "-F")
        clear_flag(host)

        assert await asyncio.to_thread(reaches, host.b, host.a, OPENED) >= OPENED

    told_apart(story)


def test_what_the_daemon_does_itself_comes_to_rest() -> None:
    async def story(host: ApartHost) -> None:
        isolation = EastWestIsolation(host.instance)
        # Once for what came before the first call, and once for the flags that were set then.
        assert 1 <= await settle(isolation, host) <= 3
        await isolation.ensure(host.network, host.proxy_address)
        assert not await isolation.changed(QUIET_SECONDS)
        clear_flag(host)
        assert 1 <= await settle(isolation, host) <= 3
        await isolation.close()

    told_apart(story)


@pytest.mark.parametrize("attached", [True, False], ids=["with sessions", "on an empty bridge"])
def test_a_probe_is_no_change_of_which_one_would_hear(attached: bool) -> None:
    """Or a daemon whose isolation is broken would probe all the time."""

    async def story(host: ApartHost) -> None:
        isolation = await established(host)
        if not attached:
            for one in host.stations:
                run("ip", "link", "delete", one.name)
            host.stations.clear()
        while await isolation.changed(LATE_SECONDS):
            pass

        waits = asyncio.create_task(isolation.changed(LATE_SECONDS))
        assert (await isolation.verify(host.network, host.proxy_address)).holds
        assert not await waits
        assert (await isolation.verify(host.network, host.proxy_address)).holds
        assert not await isolation.changed(LATE_SECONDS)
        await isolation.close()

    told_apart(story)


def test_what_others_change_while_a_probe_runs_is_heard() -> None:
    async def story(host: ApartHost) -> None:
        isolation = await established(host)
        await settle(isolation, host)
        probing = asyncio.create_task(isolation.verify(host.network, host.proxy_address))
        while "mfp" not in await asyncio.to_thread(run, "ip", "-o", "link"):
            pass
        clear_flag(host)
        await probing

        assert await isolation.changed(HEARD_SECONDS)
        await isolation.close()

    told_apart(story)


def test_many_messages_cost_little_and_are_one_change(tmp_path: Path) -> None:
    """Ten thousand of them, from an interface that is none of ours: more than the kernel keeps for anybody."""
    many = tmp_path / "many"
    many.write_text("".join(f"link set mfap9 mtu {1400 + number % 2}\n" for number in range(MANY)))

    async def story(host: ApartHost) -> None:
        isolation = await established(host)
        make_other_bridge(host)
        await settle(isolation, host)
        run("ip", "-batch", str(many))

        began = time.thread_time()
        assert await isolation.changed(HEARD_SECONDS)
        assert time.thread_time() - began < 0.05
        assert not await isolation.changed(QUIET_SECONDS)
        await isolation.close()

    told_apart(story)


def test_reading_many_messages_costs_little(tmp_path: Path) -> None:
    """As if the kernel kept them all."""
    many = tmp_path / "many"
    many.write_text("".join(f"link set mfap9 mtu {1400 + number % 2}\n" for number in range(MANY)))

    def roomy() -> socket.socket:
        made = subscribed()
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 128 * 1024 * 1024)
        return made

    async def story(host: ApartHost) -> None:
        make_other_bridge(host)
        changes = LinkChanges(roomy)
        while await changes.wait(QUIET_SECONDS):
            pass
        run("ip", "-batch", str(many))

        began, calls = time.thread_time(), 0
        while await changes.wait(0):
            calls += 1
        assert time.thread_time() - began < 0.5
        assert MANY // 1000 <= calls <= MANY // 100
        changes.close()

    told_apart(story)
