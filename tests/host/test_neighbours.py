"""What a tenant can reach from inside a session: not the neighbour, not the host; each check has one that must succeed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.host.installation import GATEWAY, PROXY, Installation, Visitor, container_of, docker, host_of, inside, until

pytestmark = pytest.mark.host

# Exit status 0: connected and heard the word. 1: refused, unreachable, unresolvable or silent.
REACH = """
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ':' in host else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM)
s.settimeout(1.5)
try:
    s.connect((host, port))
    s.sendall(b'GET /healthz HTTP/1.0\\r\\n\\r\\n')
    sys.exit(0 if s.recv(1) else 1)
except OSError:
    sys.exit(1)
"""
# Answers anything on TCP and UDP port 9999 of every address.
ANSWER = """
import socket, threading
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 9999))
    while True:
        data, peer = s.recvfrom(100); s.sendto(b'word', peer)
threading.Thread(target=udp, daemon=True).start()
s = socket.create_server(('0.0.0.0', 9999))
open('/tmp/listening', 'w').close()
while True:
    c, _ = s.accept(); c.recv(100); c.sendall(b'word'); c.close()
"""

# Calls a method of the daemon's socket without parameters and prints the status.
CALL = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(f'POST /v1/{sys.argv[2]} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: 2\\r\\n\\r\\n{{}}'.encode())
print(s.recv(64).split()[1].decode())
"""


@dataclass
class Pair:
    """Two running sessions of two people; the first listens on TCP and UDP 9999 besides its IDE."""

    first: dict[str, Any]
    second: dict[str, Any]

    @property
    def address(self) -> str:
        networks = json.loads(docker("inspect", container_of(self.first)))[0]["NetworkSettings"]["Networks"]
        (network,) = networks.values()
        return str(network["IPAddress"])


@pytest.fixture
async def pair(alice: Visitor, bob: Visitor) -> Pair:
    made = Pair(*await asyncio.gather(alice.create(), bob.create()))
    docker("exec", "--detach", container_of(made.first), "python3", "-c", ANSWER)

    async def listening() -> bool:
        return inside(made.first, "test", "-e", "/tmp/listening").returncode == 0

    await until(listening)
    return made


def reach(session: dict[str, Any], kind: str, host: str, port: int) -> bool:
    done = inside(session, "python3", "-c", REACH, kind, host, str(port))
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


@pytest.mark.parametrize(("kind", "port"), [("tcp", 8080), ("tcp", 9999), ("udp", 9999)])
async def test_a_neighbour_is_out_of_reach_by_name_and_address(pair: Pair, kind: str, port: int) -> None:
    name = container_of(pair.first)
    assert reach(pair.first, kind, pair.address, port), "the listener itself does not answer: the check would be void"
    for host in (pair.address, name, f"{name}.mftest-public-sessions"):
        assert not reach(pair.second, kind, host, port), f"{kind} {host}:{port} was reached"


async def test_every_port_of_a_neighbour_is_out_of_reach(pair: Pair) -> None:
    scan = (
        "import socket,sys,concurrent.futures as f\n"
        "def open_(p):\n"
        "    s=socket.socket(); s.settimeout(0.4)\n"
        "    try: s.connect((sys.argv[1],p)); return p\n"
        "    except OSError: return None\n"
        "    finally: s.close()\n"
        "ports=[*range(1,1200),8080,9999,*range(32768,33000)]\n"
        "print([p for p in f.ThreadPoolExecutor(200).map(open_,ports) if p])"
    )
    assert "9999" in inside(pair.first, "python3", "-c", scan, pair.address).stdout
    assert inside(pair.second, "python3", "-c", scan, pair.address).stdout.strip() == "[]"


@pytest.fixture
def host_listener() -> Iterator[int]:
    """A program of the host that listens on every address, as sshd does."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(0.1)
        yield server.getsockname()[1]


async def test_the_host_is_out_of_reach(pair: Pair, host_listener: int) -> None:
    checked = []
    for address in {GATEWAY, *_host_addresses()}:
        with contextlib.suppress(OSError), socket.create_connection((address, host_listener), 2):
            checked.append(address)  # the host's own programs reach it: the check is not void
        assert not reach(pair.second, "tcp", address, host_listener), f"a session reached {address}"
    assert GATEWAY in checked
    assert len(checked) > 1, "the host has no other address to check"


async def test_the_proxy_reaches_sessions_and_sessions_do_not_reach_the_proxy(pair: Pair, alice: Visitor) -> None:
    status, _, _ = await alice.ask("GET", f"{host_of(pair.first)}/healthz")
    assert status == 200
    assert not reach(pair.first, "tcp", PROXY, 8443)


async def test_unprivileged_programs_of_the_host_do_not_reach_sessions(pair: Pair) -> None:
    program = ["/usr/bin/python3", "-c", REACH, "tcp", pair.address, "8080"]
    assert subprocess.run(program, check=False).returncode == 0, "root itself cannot reach it: the check is void"
    unprivileged = ["setpriv", "--reuid=medforge-facade", "--regid=medforge-facade", "--clear-groups", *program]
    assert subprocess.run(unprivileged, check=False).returncode == 1


@pytest.mark.parametrize(
    "flush",
    [
        ["iptables-legacy", "-F"],
        ["iptables-legacy", "-F", "FORWARD"],
        ["bridge-ports"],
    ],
    ids=["all rules", "the jump", "port flags"],
)
async def test_isolation_comes_back_by_itself(installation: Installation, pair: Pair, flush: list[str]) -> None:
    before = len(installation.events(event="isolation.applied"))
    if flush == ["bridge-ports"]:
        for port in Path("/sys/class/net/mf-mftest/brif").iterdir():
            (port / "isolated").write_text("0")
    else:
        subprocess.run(flush, check=True)

    async def repaired() -> bool:
        return len(installation.events(event="isolation.applied")) > before

    await until(repaired, 10)
    assert not reach(pair.second, "tcp", pair.address, 9999)


def _host_addresses() -> set[str]:
    listing = json.loads(subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True).stdout)
    found = {info["local"] for link in listing for info in link["addr_info"]}
    return {address for address in found if not address.startswith("127.")}


async def test_the_container_is_hardened_and_says_so_from_both_sides(alice: Visitor) -> None:
    session = await alice.create()
    inspected = json.loads(docker("inspect", container_of(session)))[0]
    host, config = inspected["HostConfig"], inspected["Config"]
    assert config["User"] == "1000:1000"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert host["Privileged"] is False
    assert host["Init"] is True
    assert host["PidsLimit"] > 0
    assert host["Memory"] > 0
    assert host["MemorySwap"] == host["Memory"]
    assert host["NanoCpus"] > 0
    assert host["ShmSize"] > 0
    assert [mount["Destination"] for mount in inspected["Mounts"] if mount["Type"] != "tmpfs"] == ["/workspace"]
    assert inspected["Mounts"][0]["Source"].endswith(session["workspace_zfs"].removeprefix("mftestpool"))
    assert not host["PortBindings"]
    for namespace in ("PidMode", "UTSMode", "UsernsMode"):
        assert host[namespace] == ""
    assert host["IpcMode"] == "private"
    assert list(inspected["NetworkSettings"]["Networks"]) == ["mftest-public-sessions"]
    assert inspected["Image"].startswith("sha256:")
    assert config["Image"].startswith("sha256:"), "the container was made from a tag"

    status = dict(line.split(":\t", 1) for line in inside(session, "cat", "/proc/1/status").stdout.splitlines())
    for capability in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capability], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split() == ["1000"] * 4
    assert inside(session, "test", "-e", "/var/run/docker.sock").returncode == 1
    assert inside(session, "sh", "-c", "su root -c id || sudo id || mount -t tmpfs none /mnt").returncode != 0
    assert inside(session, "cat", "/etc/shadow").returncode != 0


async def test_the_facade_is_nobody_special(installation: Installation) -> None:
    pid = installation.process("facade")
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    for capability in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capability], 16) == 0
    become = [
        "setpriv",
        "--reuid=medforge-facade",
        "--regid=medforge-facade",
        f"--groups={','.join(status['Groups'].split())}",
    ]
    connect = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"
    docker_socket = subprocess.run(
        [*become, "/usr/bin/python3", "-c", connect, "/var/run/docker.sock"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "PermissionError" in docker_socket.stderr
    own = [*become, "/usr/bin/python3", "-c", connect, str(installation.daemon_socket)]
    assert subprocess.run(own, check=False).returncode == 0, "it cannot reach the daemon either: the check is void"
    for secret in (f"/var/lib/{installation.daemon_socket.parent.name}/medforged.db", "/var/lib/mftest/medforged.toml"):
        assert subprocess.run([*become, "cat", secret], capture_output=True, check=False).returncode != 0
    # It is in the group that opens the socket, and still no operator.
    for method, status_code in (("daemon.health", "200"), ("daemon.status", "403"), ("sessions.logs", "403")):
        asked = [*become, "/usr/bin/python3", "-c", CALL, str(installation.daemon_socket), method]
        assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == status_code
