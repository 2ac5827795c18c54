"""What systemd makes of the units on a booted host: understood, locked in, watched, and the daemon's mounts the host's."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.fixtures.figures import Figure
from tests.hostlab.host import CURRENT, Host

pytestmark = [pytest.mark.hostlab, pytest.mark.timeout(900)]

DROP_IN = "/run/systemd/system/medforged.service.d/blocked.conf"
# The daemon as it is, and a signal by which the thread that its loop runs in is blocked for good.
PROGRAM = "/run/medforge-blockable.py"
BLOCKABLE = """
import signal, time
signal.signal(signal.SIGUSR2, lambda *_: time.sleep(10**6))
from medforged.daemon import main
main()
"""


def exposure(host: Host, unit: str) -> float:
    found = re.search(
        r"Overall exposure level for \S+: ([\d.]+)", host.run(f"systemd-analyze security --no-pager {unit}")
    )
    assert found
    return float(found[1])


def test_systemd_understands_them(host: Host) -> None:
    answer = host.ask(
        "systemd-analyze verify --man=no $(systemctl list-unit-files --plain --no-legend 'medforge*' | cut -d' ' -f1)"
    )
    assert [line for line in (answer.stdout + answer.stderr).splitlines() if "medforge" in line] == []


def test_how_far_they_are_locked_in(host: Host, figure: Figure) -> None:
    most = {"medforge-facade.service": 2.0, "medforged.service": 6.5}
    found = {unit: exposure(host, unit) for unit in most}
    for unit, value in found.items():
        figure(f"exposure of {unit}", value, f"of at most {most[unit]:g}")
    assert all(found[unit] <= most[unit] for unit in most)


def test_the_daemons_mounts_are_the_hosts_and_docker_sees_them(host: Host, session: dict[str, Any]) -> None:
    assert host.run(f"readlink /proc/{host.pid('medforged.service')}/ns/mnt") == host.run("readlink /proc/1/ns/mnt")
    path = f"/{session['workspace_zfs']}"
    assert host.run(f"findmnt --noheadings --output FSTYPE,SOURCE {path}").split() == ["zfs", session["workspace_zfs"]]
    # What the session writes is on the dataset, and what is on the dataset the session sees.
    assert host.inside(session, "echo from inside >/workspace/mark && cat /workspace/mark").stdout == "from inside\n"
    assert host.run(f"cat {path}/mark") == "from inside\n"
    inside = host.inside(session, "grep ' /workspace ' /proc/mounts").stdout.split()
    assert inside[2] == "zfs"
    # A control: the same look at a service that has a namespace of its own.
    facade = host.pid("medforge-facade.service")
    assert host.run(f"readlink /proc/{facade}/ns/mnt") != host.run("readlink /proc/1/ns/mnt")


def test_the_daemon_has_the_rights_that_its_unit_lists_and_no_others(host: Host) -> None:
    status = host.run(f"cat /proc/{host.pid('medforged.service')}/status")
    bounding = int(re.search(r"CapBnd:\s+(\w+)", status)[1], 16)
    assert not bounding & (1 << 16), "CAP_SYS_MODULE"
    assert not bounding & (1 << 22), "CAP_SYS_BOOT"
    assert bounding & (1 << 21), "CAP_SYS_ADMIN"
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


def test_a_daemon_whose_loop_is_blocked_is_replaced(host: Host, session: dict[str, Any], alice: str) -> None:
    start = f"ExecStart=\nExecStart={CURRENT}/bin/python {PROGRAM}"
    host.put(BLOCKABLE, PROGRAM)
    host.put(f"[Service]\nWatchdogSec=5\n{start}\n", DROP_IN)
    try:
        host.run("systemctl daemon-reload && systemctl restart medforged", seconds=200)
        host.until_well()
        before = host.pid("medforged.service")
        # A daemon that works is left alone, however slow this machine is.
        assert host.show("medforged.service", "NRestarts")["NRestarts"] == "0"
        host.run(f"kill -USR2 {before}")

        def replaced() -> bool:
            seen = host.show("medforged.service", "MainPID", "ActiveState", "NRestarts")
            return (
                seen["ActiveState"] == "active"
                and seen["MainPID"] not in ("0", str(before))
                and int(seen["NRestarts"]) >= 1
            )

        host.until("another daemon", replaced, 180)
        told = host.run("journalctl -u medforged.service --no-pager --quiet -n 400")
        assert "Watchdog timeout" in told
    finally:
        host.run(f"rm -f {DROP_IN} {PROGRAM} && systemctl daemon-reload && systemctl restart medforged")
    host.until_well()
    assert host.session(session, alice)["status"] == "running"


def test_callers_wait_at_the_socket_and_start_a_daemon_that_is_not_there(host: Host) -> None:
    before = host.show("medforged.service", "InvocationID")
    host.run("systemctl stop medforged.service")
    # Whoever asks starts it: this caller here, or the facade, which asks all the time. Nobody is refused.
    answer = host.ask("medforgectl status", seconds=120)
    assert "is not running" not in answer.stderr
    assert "nothing listens" not in answer.stderr
    host.until_well()
    assert host.show("medforged.service", "InvocationID") != before


def test_daemon_reload_takes_no_gpu_away(host: Host, session: dict[str, Any]) -> None:
    look = "ls /dev/nvidia* && echo x >/dev/$(ls /dev | grep nvidia)"
    before = host.inside(session, look)
    assert (before.code, before.stdout.startswith("/dev/nvidia")) == (0, True), before
    host.run("systemctl daemon-reload && systemctl daemon-reexec")
    assert host.inside(session, look) == before


def test_each_session_sees_its_own_gpu_and_no_other(host: Host, alice: str, bob: str) -> None:
    sessions = [(host.start_session(cookie), cookie) for cookie in (alice, bob)]
    try:
        seen = {}
        for one, _ in sessions:
            container = f"mf-session-{one['slug']}"
            request = json.loads(
                host.run(f"docker inspect --format '{{{{json .HostConfig.DeviceRequests}}}}' {container}")
            )
            assert [part["Driver"] for part in request] == ["cdi"]
            seen[one["gpu_id"]] = (host.inside(one, "ls /dev | grep nvidia").stdout.split(), request[0]["DeviceIDs"][0])
        assert len(seen) == 2
        (nodes, other_nodes) = (nodes for nodes, _ in seen.values())
        assert len(nodes) == len(other_nodes) == 1
        assert nodes != other_nodes
        uuids = {gpu["id"]: gpu["uuid"] for gpu in host.ctl("gpus")["gpus"]}
        assert {number: f"nvidia.com/gpu={uuids[number]}" for number in seen} == {
            number: device for number, (_, device) in seen.items()
        }
    finally:
        for one, cookie in sessions:
            host.stop_session(one, cookie)
