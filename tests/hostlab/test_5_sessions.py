"""Sessions on the whole host: who is let in through Caddy on TLS, who is kept out between sessions, and what is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hostlab.host import Host, Reply

pytestmark = [pytest.mark.hostlab, pytest.mark.timeout(900)]

Pair = tuple[dict[str, Any], dict[str, Any]]


def test_a_stopped_session_is_404_and_its_neighbour_goes_on(host: Host, alice: str, bob: str) -> None:
    mine, theirs = host.start_session(alice), host.start_session(bob)
    try:
        assert host.stop_session(mine, alice)["status"] == "stopped"
        assert host.get(f"s-{mine['slug']}", "/healthz", alice).status == 404
        assert host.get(f"s-{theirs['slug']}", "/healthz", bob).status == 200
    finally:
        host.stop_session(theirs, bob)


def test_the_journal_tells_a_sessions_whole_story_by_its_fields(host: Host, alice: str) -> None:
    session = host.start_session(alice)
    host.stop_session(session, alice)
    story = host.journal("-u", "medforged", f"SLUG={session['slug']}")
    events = [entry["EVENT"] for entry in story]
    assert events.index("session.start") < events.index("session.stop")
    for entry in story:
        assert entry["SESSION_ID"] == session["id"]
        assert entry["USER_ID"] == session["user_id"]
        assert entry["_UID"] == "0"
        assert len(entry["MESSAGE_ID"]) == 32
    (stop,) = host.journal("EVENT=session.stop", f"SESSION_ID={session['id']}")
    assert (stop["MEDFORGE_REASON"], stop["GPU_ID"]) == ("requested", str(session["gpu_id"]))
    assert stop["PRIORITY"] == "6"
    # One id from the request that the facade answered to what the daemon did about it.
    start = next(entry for entry in story if entry["EVENT"] == "session.start")
    programs = {entry["SYSLOG_IDENTIFIER"] for entry in host.journal(f"CORRELATION_ID={start['CORRELATION_ID']}")}
    assert programs == {"medforged", "medforge-facade"}
    assert host.journal("EVENT=session.stop", "SLUG=zzzzzzzz") == []


def test_medforgectl_logs_asks_the_journal(host: Host, alice: str) -> None:
    session = host.start_session(alice)
    host.stop_session(session, alice)
    told = host.run(f"medforgectl logs {session['slug']}")
    assert "session.start" in told
    assert "session.stop" in told
    by_id = host.run(f"medforgectl logs {session['id']} --event session.stop -o json").splitlines()
    assert [json.loads(line)["SLUG"] for line in by_id] == [session["slug"]]
    answer = host.ask("medforgectl logs 'abc;reboot'")
    assert (answer.code, "neither a slug" in answer.stderr) == (2, True)


@pytest.fixture(scope="module")
def pair(host: Host, alice: str, bob: str) -> Iterator[Pair]:
    """A session of each."""
    made = host.start_session(alice), host.start_session(bob)
    yield made
    for session, cookie in zip(made, (alice, bob), strict=True):
        host.stop_session(session, cookie)


def test_the_wildcard_root_lets_in_whom_it_should(host: Host, pair: Pair, alice: str, bob: str, admin: str) -> None:
    name = f"s-{pair[0]['slug']}"

    def look(cookie: str = "") -> Reply:
        return host.get(name, "/healthz", cookie)

    assert look().status == 401
    assert look("forged").status == 401
    assert look(bob).status == 403
    assert json.loads(look(bob).body)["detail"] == "Session access denied."
    assert (look(alice).status, look(alice).body) == (200, "ok\n")
    assert look(admin).status == 200
    assert host.get("s-aaaaaaaa", "/", alice).status == 404
    for spelling in ("/api/v1/auth/session-proxy", "//api/v1/auth/%73ession-proxy", "/API/v1/auth/session-proxy"):
        assert host.get(name, spelling, alice).status == 403


# Tries to open a TCP connection to the address of another session, from inside a session.
REACH = "echo | nc -w 5 {address} {port} >/dev/null 2>&1 && echo reached || echo kept out"


def address_of(host: Host, session: dict[str, Any]) -> str:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return host.run(f"docker inspect --format '{template}' mf-session-{session['slug']}").strip()


def reaches(host: Host, source: dict[str, Any], address: str, port: int = 8080) -> bool:
    told = host.inside(source, REACH.format(address=address, port=port)).stdout.strip()
    assert told in ("reached", "kept out"), told
    return told == "reached"


def test_sessions_reach_neither_each_other_nor_the_host(host: Host, pair: Pair) -> None:
    first, second = pair
    assert not reaches(host, first, address_of(host, second))
    assert not reaches(host, second, address_of(host, first))
    assert not reaches(host, first, "172.30.0.1", 22)
    # Controls: each reaches itself, and the proxy reaches both.
    assert reaches(host, first, address_of(host, first))
    assert host.get("api", "/healthz").status == 200


def test_without_br_netfilter_no_session_starts_and_it_heals_when_the_module_comes(
    host: Host, pair: Pair, admin: str
) -> None:
    """The module is lost while sessions run, and loaded again late: the second layer holds in between."""
    target = address_of(host, pair[1])
    # Not `modprobe -r`, which would take the bridges along.
    host.run("rmmod br_netfilter")
    try:
        assert host.run("ls /proc/sys/net").find("bridge") < 0
        problem = host.until("the daemon's notice", lambda: host.unwell().get("isolation", ""), 120)
        assert "br_netfilter" in problem
        # Bridge ports are isolated all the same.
        assert not reaches(host, pair[0], target)
        refused = host.send("POST", "api", "/api/v1/sessions", admin, {})
        assert refused.status in (500, 503), refused
    finally:
        host.run("modprobe br_netfilter")
    host.until_well()
    for family in ("iptables", "ip6tables"):
        assert host.run(f"cat /proc/sys/net/bridge/bridge-nf-call-{family}").strip() == "1"
    assert not reaches(host, pair[0], target)


def test_rules_that_were_flushed_come_back(host: Host, pair: Pair) -> None:
    host.run("iptables-legacy -F; ip6tables-legacy -F")
    host.until("the rules", lambda: "MEDFORGE" in host.run("iptables-legacy -S FORWARD"), 60)
    host.until_well()
    assert not reaches(host, pair[0], address_of(host, pair[1]))


def test_errors_are_explained_by_the_catalog(host: Host) -> None:
    told = host.run("journalctl --list-catalog --no-pager | grep -c MedForge || true").strip()
    assert int(told) > 0


def test_no_secret_is_in_the_journal(host: Host, alice: str, bob: str) -> None:
    told = host.run("journalctl --no-pager --quiet --output=json -u medforged -u medforge-facade", seconds=120)
    for secret in (alice, bob, "correct horse"):
        assert secret not in told


def test_an_operators_program_asks_by_the_python_client(host: Host) -> None:
    """The daemon is reached by its Python client too, as another program of an operator would."""
    told = host.run(
        "/usr/lib/medforge/current/bin/python -c '"
        "import asyncio\n"
        "from medforged.client import DaemonClient, DEFAULT_SOCKET\n"
        "from medforged.contract import methods\n"
        "from medforged.contract.daemon import GetStatus\n"
        "async def ask():\n"
        "    async with DaemonClient(DEFAULT_SOCKET) as client:\n"
        "        print((await client.call(methods.daemon_health, GetStatus())).health)\n"
        "asyncio.run(ask())'"
    )
    assert told.strip() == "ok"
