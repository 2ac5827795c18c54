"""What happens to a real host: programs killed, Docker restarted, an orderly reboot and a power cut."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostlab.host import POOL, Host

pytestmark = [pytest.mark.hostlab, pytest.mark.timeout(1500)]


def snapshots(host: Host, session: dict[str, Any]) -> list[str]:
    told = host.run(f"zfs list -H -t snapshot -o name {session['workspace_zfs']}")
    return [name.partition("@")[2].partition("-")[0] for name in told.split()]


def orphans(host: Host) -> list[str]:
    """What no record explains; nothing on a machine that was new."""
    return sorted(one["name"] for one in host.ctl("cleanup")["orphans"])


def container_id(host: Host, session: dict[str, Any]) -> str:
    return host.run(f"docker inspect --format '{{{{.Id}}}} {{{{.State.Pid}}}}' mf-session-{session['slug']}")


def until_open(host: Host, session: dict[str, Any], cookie: str) -> None:
    """Open a session until it is there. On the way nobody is told that it is not theirs or has gone: a request waits in the
    facade's socket. Patience is a real host's and not an emulated one's, and may end before: Caddy's, and that of a facade
    which is new and waits for the daemon."""

    def opened() -> bool:
        reply = host.get(f"s-{session['slug']}", "/healthz", cookie)
        assert reply.status in (200, 504) or (reply.status == 503 and "retry-after" in reply.headers), reply
        return reply.status == 200

    host.until("the session's page", opened)


def test_a_killed_daemon_comes_back_and_sessions_never_notice(host: Host, session: dict[str, Any], alice: str) -> None:
    before, container = host.pid("medforged.service"), container_id(host, session)
    host.run(f"kill -9 {before}")
    # While there is no daemon the session is reached all the same.
    assert host.get(f"s-{session['slug']}", "/healthz", alice).status == 200
    host.until("another daemon", lambda: host.pid("medforged.service") not in (0, before), 120)
    host.until_well()
    assert container_id(host, session) == container
    assert host.session(session, alice)["status"] == "running"


def test_a_killed_facade_comes_back(host: Host, session: dict[str, Any], alice: str) -> None:
    before = host.pid("medforge-facade.service")
    host.run(f"kill -9 {before}")
    # Caddy's question waits in the socket and is answered by the next one.
    until_open(host, session, alice)
    assert host.pid("medforge-facade.service") not in (0, before)
    assert host.show("medforge-facade.service", "NRestarts")["NRestarts"] != "0"


def test_restarting_everything_loses_nobody(host: Host, session: dict[str, Any], alice: str) -> None:
    host.run("systemctl restart --no-block medforged medforge-facade")
    until_open(host, session, alice)
    host.until_well()
    assert host.get("api", "/api/v1/me", alice).status == 200
    assert host.session(session, alice)["status"] == "running"


def test_docker_restarted_ends_sessions_with_their_snapshot_and_the_next_one_starts(host: Host, alice: str) -> None:
    session = host.start_session(alice)
    assert host.inside(session, "echo work >/workspace/work && sync").code == 0
    host.run("systemctl restart docker", seconds=300)
    ended = host.until_ended(session, alice)
    assert ended["status"] == "error"
    assert snapshots(host, session) == ["death"]
    host.until_well()
    again = host.start_session(alice)
    assert host.get(f"s-{again['slug']}", "/healthz", alice).status == 200
    host.stop_session(again, alice)
    assert {gpu["session_id"] for gpu in host.ctl("gpus")["gpus"]} == {None}


@pytest.mark.parametrize("abruptly", [False, True], ids=["reboot", "power cut"])
def test_after_a_reboot_everything_comes_back_without_a_hand(host: Host, alice: str, *, abruptly: bool) -> None:
    host.until_well()
    before = orphans(host)
    session = host.start_session(alice)
    assert host.inside(session, "echo work >/workspace/work && sync").code == 0
    host.machine.reboot(abruptly=abruptly)
    assert host.machine.until_booted() == "running", host.run("systemctl --failed --plain --no-legend")
    host.until_well(300)
    ended = host.until_ended(session, alice)
    assert ended["status"] in ("stopped", "error")
    (kind,) = snapshots(host, session)
    assert kind in ("stop", "death")
    # What was written and synced before is in it.
    assert host.run(f"cat /{session['workspace_zfs']}/.zfs/snapshot/{kind}-*/work") == "work\n"
    # Module, addresses, network and rules are as before, and nothing is left of what ran.
    assert host.run("cat /proc/sys/net/bridge/bridge-nf-call-iptables").strip() == "1"
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    assert host.run(f"docker inspect --format '{template}' medforge-caddy").strip() == "172.30.0.2"
    assert "MEDFORGE" in host.run("iptables-legacy -S FORWARD")
    assert host.run("docker ps --all --quiet --filter name=mf-session-") == ""
    assert orphans(host) == before
    assert host.run(f"zpool status -x {POOL}").strip() == f"pool '{POOL}' is healthy"
    first = host.start_session(alice)
    assert host.get(f"s-{first['slug']}", "/healthz", alice).status == 200
    assert host.stop_session(first, alice)["status"] == "stopped"
