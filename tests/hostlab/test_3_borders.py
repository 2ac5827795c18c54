"""Who gets through to what: by the kernel's word at the daemon's socket, and from a shell that has become the facade."""

from __future__ import annotations

import json

import pytest

from tests.hostlab.host import PYTHON, Host

pytestmark = [pytest.mark.hostlab, pytest.mark.timeout(600)]

# Asks the daemon's socket and prints the status, or the errno with which the kernel refused.
CALL = """
import http.client, json, socket, sys
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
try:
    connection = Unix("daemon", timeout=60)
    connection.request("POST", "/v1/" + sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "{}")
    answer = connection.getresponse()
    print(answer.status, json.loads(answer.read()).get("code", ""))
except OSError as error:
    print("errno", error.errno)
"""
SOCKET = "/run/medforge/medforged.sock"
OPERATORS = "/run/medforge/operators.sock"


@pytest.fixture(scope="module", autouse=True)
def people(host: Host) -> None:
    """An operator, who is a member of the group, and a stranger, who is not; Docker's group does not help him."""
    host.put(CALL, "/opt/lab/call.py")
    host.run("id operator1 2>/dev/null || useradd --create-home --groups medforge operator1")
    host.run("id stranger1 2>/dev/null || useradd --create-home stranger1")


def call(host: Host, who: str, method: str, socket: str = SOCKET, parameters: str = "{}") -> str:
    command = f"{PYTHON} /opt/lab/call.py {socket} {method} '{parameters}'"
    if who != "root":
        command = f"setpriv --reuid={who} --regid={who} --init-groups {command}"
    return host.run(command).strip()


@pytest.mark.parametrize(
    ("who", "own", "operators"),
    [
        ("root", "200", "200"),
        ("operator1", "200", "200"),
        # It may call what end users need, and nothing of the operators', although it is in their group.
        ("medforge-facade", "200", "403 access_denied"),
        # The kernel lets them not even connect.
        ("stranger1", "errno 13", "errno 13"),
        ("nobody", "errno 13", "errno 13"),
        ("medforge-caddy", "errno 13", "errno 13"),
    ],
)
def test_the_daemons_socket_knows_who_calls(host: Host, who: str, own: str, operators: str) -> None:
    if who == "nobody":
        answer = host.run(
            f"setpriv --reuid=65534 --regid=65534 --clear-groups {PYTHON} /opt/lab/call.py {SOCKET} daemon.health"
        )
        assert answer.strip() == own
        return
    assert call(host, who, "daemon.health") == own
    for method in ("daemon.status", "gpus.list", "orphans.list", "sessions.reconcile"):
        assert call(host, who, method) == operators


def test_a_stranger_who_got_hold_of_the_socket_is_refused_all_the_same(host: Host) -> None:
    """The mode keeps strangers from asking; what they may do is decided by who the kernel says they are."""
    host.run(f"chmod 0666 {SOCKET}")
    try:
        assert call(host, "stranger1", "daemon.health") == "403 access_denied"
    finally:
        host.run(f"chmod 0660 {SOCKET}")
    denied = host.journal("EVENT=rpc.denied", f"MEDFORGE_PEER_UID={host.run('id -u stranger1').strip()}")
    assert denied
    assert denied[-1]["MEDFORGE_METHOD"] == "daemon.health"


@pytest.mark.parametrize(
    ("who", "told"),
    [("root", "200"), ("operator1", "200"), ("medforge-facade", "403 access_denied"), ("stranger1", "errno 13")],
)
def test_the_operator_socket_knows_who_calls(host: Host, who: str, told: str) -> None:
    assert call(host, who, "users.list", OPERATORS) == told


# What somebody tries who runs a shell as the facade, with and without the walls of its unit.
ATTEMPTS = {
    "docker": "curl --silent --max-time 10 --unix-socket /run/docker.sock http://d/containers/json",
    "containerd": "ls /run/containerd/containerd.sock.ttrpc && cat /run/containerd/containerd.sock",
    "records": "cat /var/lib/medforge/medforged.db",
    "certificates": "ls /var/lib/medforge-caddy/caddy",
    "settings": "echo x >>/etc/medforge/facade.toml",
    "programs": "touch /usr/lib/medforge/current/bin/medforge-facade",
    "pool": "zfs destroy -r tank/medforge",
    "workspaces": "find /tank/medforge/workspaces -mindepth 3 -maxdepth 3 -exec ls {}/private ';' | grep .",
    "root": "setpriv --reuid=0 id -u",
    "rules": "iptables-legacy -F",
    "modules": "modprobe dummy",
    "ptrace": "cat /proc/$(cat /sys/fs/cgroup/system.slice/medforged.service/cgroup.procs | head -1)/environ",
    "mount": "mount -t tmpfs none /mnt",
}
AS_FACADE = "setpriv --reuid=medforge-facade --regid=medforge-facade --init-groups --no-new-privs --bounding-set=-all"


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("walls", ["unit", "none"])
def test_a_shell_as_the_facade_reaches_nothing_of_the_hosts(host: Host, walls: str, attempt: str) -> None:
    inside = ""
    if walls == "unit":
        pid = host.pid("medforge-facade.service")
        inside = f"nsenter --target {pid} --mount --ipc --net "
        # Something stands in its place there, which nobody can open.
        assert host.run(f"{inside} stat --format %a /run/docker.sock").strip() == "0"
    answer = host.ask(f"{inside}{AS_FACADE} sh -c {json.dumps(ATTEMPTS[attempt])}")
    assert answer.code != 0, answer.stdout


@pytest.mark.parametrize("attempt", ["docker", "records", "certificates", "pool-control"])
def test_roots_shell_reaches_what_the_facades_did_not(host: Host, attempt: str) -> None:
    """A control: the same attempts, by who may."""
    command = "zfs list tank/medforge" if attempt == "pool-control" else ATTEMPTS[attempt]
    assert host.ask(f"sh -c {json.dumps(command)} >/dev/null").code == 0


def test_the_facades_own_process_has_no_rights(host: Host) -> None:
    for pid in host.run("cat /sys/fs/cgroup/system.slice/medforge-facade.service/cgroup.procs").split():
        status = host.run(f"cat /proc/{pid}/status")
        for line in ("CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
            assert line in status
        assert host.run(f"ps -o user:32= -p {pid}").strip() == "medforge-facade"
        # Nothing of the host's is open in it but its sockets, its database, and the journal.
        opened = host.run(f"ls -l /proc/{pid}/fd")
        assert "docker" not in opened
        assert "medforged.db" not in opened


def test_the_facade_cannot_name_what_the_daemon_would_do(host: Host) -> None:
    """Identifiers and enumerations alone: no paths, no images, no argument lists."""
    for parameters in (
        {"user_id": "../../etc", "tier": "public", "max_concurrent_sessions": 1},
        {
            "user_id": "6f0bd8b0-0000-4000-8000-000000000000",
            "tier": "public",
            "image": "evil",
            "max_concurrent_sessions": 1,
        },
        {"user_id": "6f0bd8b0-0000-4000-8000-000000000000", "tier": "root", "max_concurrent_sessions": 1},
    ):
        told = call(host, "medforge-facade", "sessions.create", parameters=json.dumps(parameters))
        assert told == "400 bad_request"
