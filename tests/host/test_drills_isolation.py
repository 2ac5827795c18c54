"""Drills: isolation under fire. It is back within five seconds, and while it cannot be, nothing starts and everybody is told."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from medforged.adapters.iptables.rules import chain_names
from medforged.client import DaemonError
from medforged.contract.errors import ErrorCode
from medforged.contract.sessions import Session
from tests.fixtures.figures import Figure
from tests.host.drill_daemon import DaemonMaker, DrillDaemon, gathered
from tests.host.drills import agrees, ground_of, ground_of_installation
from tests.host.installation import INSTANCE, Installation, Visitor, until

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.drill_fixtures"]

_SECONDS = 5.0
# Of what the kernel tells nobody, a round takes as long as the daemon's interval.
_ROUNDS = int(os.environ.get("MEDFORGE_DRILL_ROUNDS", "2"))
_ASK = "printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' | {program} -w 1 {address} 8080"


@dataclass(frozen=True)
class Pair:
    """Two sessions of a daemon, and how the host keeps them apart when all is well."""

    daemon: DrillDaemon
    first: Session
    second: Session
    whole: tuple[object, ...]

    def state(self) -> tuple[object, ...]:
        return _layers(self.daemon)

    def address(self, session: Session) -> str:
        found = json.loads(self.daemon.engine.docker("inspect", f"mf-session-{session.slug}"))[0]
        return str(found["NetworkSettings"]["Networks"][self.daemon.network]["IPAddress"])

    def port(self, session: Session) -> str:
        """Its port of the bridge: the one that has the container's address behind it."""
        inside = self.daemon.inside(session, "cat", "/sys/class/net/eth0/iflink", check=True).stdout.strip()
        links = self.daemon.engine.run("ip", "-oneline", "link", "show").splitlines()
        (name,) = [line.split(":")[1].strip().partition("@")[0] for line in links if line.startswith(f"{inside}:")]
        return name

    def leaks(self) -> bool:
        """Whether the first reaches the second, whom root on the host does reach."""
        address = self.address(self.second)
        control = self.daemon.engine.run("sh", "-c", _ASK.format(program="busybox nc", address=address))
        assert "200" in control, "nobody reaches it: the check is void"
        asked = self.daemon.inside(self.first, "sh", "-c", _ASK.format(program="nc", address=address))
        return "200" in asked.stdout


def _layers(daemon: DrillDaemon) -> tuple[object, ...]:
    """Every rule of ours in both families, and how many ports there are with and without isolation."""
    run = daemon.engine.run
    rules = [
        line
        for program in ("iptables-legacy", "ip6tables-legacy")
        for line in run(program, "-S").splitlines()
        if "MEDFORGE-" in line
    ]
    ports = json.loads(run("bridge", "-details", "-json", "link", "show") or "[]")
    flags = sorted(bool(port.get("isolated")) for port in ports if port.get("master") == daemon.bridge)
    return (*rules, *flags)


@pytest.fixture
async def pair(daemon: DrillDaemon) -> Pair:
    first, second = await asyncio.gather(daemon.create(), daemon.create())
    await agrees(ground_of(daemon))
    made = Pair(daemon, first, second, _layers(daemon))
    assert made.whole[-2:] == (True, True), "both ports are isolated"
    assert len(made.whole) > 20
    return made


def _run(*argv: str) -> Callable[[Pair], None]:
    return lambda pair: _done(pair.daemon.engine.run(*argv))


def _done(_output: str) -> None:
    """The program has ended well, and that is all."""


def _delete_chain(pair: Pair) -> None:
    chain = chain_names(pair.daemon.instance, pair.daemon.network)["FORWARD"]
    run = pair.daemon.engine.run
    (jump,) = [rule for rule in run("iptables-legacy", "-S", "FORWARD").splitlines() if rule.endswith(f"-j {chain}")]
    run("sh", "-c", f"iptables-legacy -D {jump.removeprefix('-A ')}")
    run("iptables-legacy", "-F", chain)
    run("iptables-legacy", "-X", chain)


def _open_port(pair: Pair) -> None:
    pair.daemon.engine.run("bridge", "link", "set", "dev", pair.port(pair.second), "isolated", "off")


def _reconnect(pair: Pair) -> None:
    arguments = (pair.daemon.network, f"mf-session-{pair.second.slug}")
    pair.daemon.engine.docker("network", "disconnect", *arguments)
    pair.daemon.engine.docker("network", "connect", *arguments)


_FIRE: dict[str, Callable[[Pair], None]] = {
    "FORWARD flushed": _run("iptables-legacy", "-F", "FORWARD"),
    "all rules flushed": _run("iptables-legacy", "-F"),
    "IPv6 flushed": _run("ip6tables-legacy", "-F"),
    "our chain deleted": _delete_chain,
    "port no longer isolated": _open_port,
    "session reconnected": _reconnect,
}


@pytest.mark.parametrize("fire", _FIRE)
async def test_it_is_back_within_five_seconds(pair: Pair, figure: Figure, fire: str) -> None:
    async def back() -> bool:
        return await asyncio.to_thread(pair.state) == pair.whole

    took = []
    for _ in range(_ROUNDS):
        _FIRE[fire](pair)
        began = time.monotonic()
        if fire != "session reconnected":
            assert not await back(), "nothing has been taken away: the check is void"
        await until(back, 2 * _SECONDS)
        took.append(time.monotonic() - began)
    figure(f"isolation back: {fire}", took)
    assert max(took) <= _SECONDS
    assert not await asyncio.to_thread(pair.leaks)
    await agrees(ground_of(pair.daemon))


async def test_flushing_the_other_tables_takes_nothing_away(pair: Pair) -> None:
    """`iptables` is the other packet filter, which Docker uses: both are asked about every packet."""
    pair.daemon.engine.run("iptables", "-F", "FORWARD")
    pair.daemon.engine.run("iptables", "-P", "FORWARD", "ACCEPT")
    assert pair.state() == pair.whole
    assert not await asyncio.to_thread(pair.leaks)


async def test_a_network_that_is_removed_is_made_again(daemon: DrillDaemon, figure: Figure) -> None:
    async def there() -> bool:
        listed = daemon.engine.docker("network", "ls", "--format", "{{.Name}}").split()
        return daemon.network in listed and not await daemon.problems()

    took = []
    for _ in range(_ROUNDS):
        daemon.engine.docker("network", "rm", daemon.network)
        began = time.monotonic()
        await until(there, 2 * _SECONDS)
        took.append(time.monotonic() - began)
    figure("network made again, isolation proven", took)
    assert max(took) <= _SECONDS
    session = await daemon.create()
    await agrees(ground_of(daemon))
    await daemon.end(session)


async def test_without_a_bridge_nothing_starts(pair: Pair, figure: Figure) -> None:
    daemon = pair.daemon
    run = daemon.engine.run

    async def isolated() -> bool:
        return "isolation" not in await daemon.problems()

    with _renamed(run, daemon.bridge):
        began = time.monotonic()
        await until(lambda: _not(isolated), 2 * _SECONDS)
        figure("isolation lost until it is told", time.monotonic() - began)
        await _nothing_starts(daemon, pair.first, pair.second)
    began = time.monotonic()
    await until(isolated, 2 * _SECONDS)
    took = time.monotonic() - began
    figure("bridge back until isolation is proven", took)
    assert took <= _SECONDS
    assert not await asyncio.to_thread(pair.leaks)
    await daemon.end(await daemon.create())
    await agrees(ground_of(daemon))


async def test_while_the_packet_filter_cannot_be_changed_nothing_starts(
    make_daemon: DaemonMaker, tmp_path: Path, figure: Figure
) -> None:
    # A lock file of its own in its place: nobody else on this host waits for it.
    lock = tmp_path / "xtables.lock"
    lock.touch()
    within = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /run/xtables.lock && exec "$@"', str(lock))
    # What others mount is not seen from there.
    daemon = make_daemon(settings={"adapters": {"workspaces": "directories"}}, within=within)
    await daemon.start()
    session = await daemon.create()
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        daemon.engine.run("iptables-legacy", "-F")
        await until(lambda: _names(daemon, "isolation"), 15)
        await _nothing_starts(daemon, session)
    began = time.monotonic()
    await daemon.healthy(15)
    took = time.monotonic() - began
    figure("packet filter free again until isolation is proven", took)
    assert took <= _SECONDS
    await daemon.end(await daemon.create())


async def _nothing_starts(daemon: DrillDaemon, *exposed: Session) -> None:
    """Refused with the reason; those that run are named by health and in the journal."""
    (refused,) = await gathered(daemon.create())
    assert isinstance(refused, DaemonError)
    assert refused.code is ErrorCode.HOST_FAILED
    assert "isolation is not established" in refused.message
    told = (await daemon.problems())["isolation"]

    async def journal() -> bool:
        return all(daemon.events(event="isolation.exposed", slug=session.slug) for session in exposed)

    await until(journal, _SECONDS)
    for session in exposed:
        assert session.slug in told


async def test_the_site_says_that_isolation_is_lost(installation: Installation, alice: Visitor, bob: Visitor) -> None:
    async with ground_of_installation(installation) as ground:
        session = await alice.create()
        with _renamed(ground.run, ground.bridge):
            # Not through Caddy, which stands on that bridge.
            await until(lambda: _health(installation, 503, "isolation"), 2 * _SECONDS)
            status, problem = await _ask(installation, "POST", "/api/v1/sessions", bob)
            assert (status, problem["detail"]) == (500, "Failed to start session runtime.")
            shown = installation.ctl("status", check=False)
            assert shown.returncode != 0
            assert session["slug"] in shown.stdout
        await until(lambda: _health(installation, 200), 2 * _SECONDS)
        await bob.create()
        await agrees(ground)


async def _ask(
    installation: Installation, method: str, path: str, person: Visitor | None = None
) -> tuple[int, dict[str, Any]]:
    connector = aiohttp.UnixConnector(f"/run/{INSTANCE}-facade/facade.sock")
    headers = {"Host": installation.api.split("/")[2]}
    if person is not None:
        headers["Cookie"] = f"medforge_session={person.cookie}"
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.request(method, f"http://facade{path}", headers=headers, json={} if method == "POST" else None) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def _health(installation: Installation, wanted: int, part: str | None = None) -> bool:
    status, body = await _ask(installation, "GET", "/healthz")
    parts = [failing["part"] for failing in body["data"].get("failing", [])]
    return status == wanted and (part is None or part in parts)


@contextmanager
def _renamed(run: Callable[..., str], bridge: str) -> Iterator[None]:
    """Take the bridge's name away, as it is: nobody finds it, and what is plugged into it goes on."""
    run("ip", "link", "set", "dev", bridge, "name", "mfgone")
    try:
        yield
    finally:
        run("ip", "link", "set", "dev", "mfgone", "name", bridge)


async def _not(condition: Callable[[], Any]) -> bool:
    return not await condition()


async def _names(daemon: DrillDaemon, part: str) -> bool:
    return part in await daemon.problems()
