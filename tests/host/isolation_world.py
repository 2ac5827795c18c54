"""Owns what host tests of isolation stand on: a network of their own with a proxy and two sessions, all of them real containers.

Everything is named at random. Networks are /24s of 172.28.32.0/21; 172.28.40.0/21 is for what stands outside of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from medforged.adapters.bridge.namespaces import inside
from medforged.domain.containers import Endpoint, NetworkSpec, SessionNetwork
from tests.host import tiny_image
from tests.host.tiny_image import docker

SUBNETS = tuple(IPv4Network("172.28.32.0/21").subnets(new_prefix=24))
OUTSIDE = tuple(IPv4Network("172.28.40.0/21").subnets(new_prefix=30))
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Station:
    """A container, or a namespace made by a test: somewhere to send from and to listen."""

    name: str
    address: IPv4Address
    process_id: int

    def run(self, call: Callable[[], T]) -> T:
        """Run a call with this station's network."""
        descriptor = os.open(f"/proc/{self.process_id}/ns/net", os.O_RDONLY)
        try:
            return inside(descriptor, call)
        finally:
            os.close(descriptor)


@dataclass(slots=True)
class World:
    """The network, and who is attached. `published` is the proxy's port 8080 on every address of the host."""

    spec: NetworkSpec
    image: str
    proxy: Station
    a: Station
    b: Station
    published: int

    @property
    def network(self) -> SessionNetwork:
        """As the engine sees it now."""
        listed = json.loads(docker("network", "inspect", self.spec.name))[0]["Containers"]
        stations = [station(identity, self.spec.name) for identity in listed]
        endpoints = tuple(Endpoint(one.name, one.address, one.process_id) for one in stations)
        return SessionNetwork(self.spec.name, self.spec.bridge, self.spec.subnet, self.spec.gateway, endpoints)

    def start(self, name: str, *options: str) -> Station:
        """A container as a session's is made; it serves HTTP on port 8080. IPv6, which Docker
        switches off, is on."""
        limits = ("--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
        options = (
            *limits,
            "--sysctl",
            "net.ipv6.conf.all.disable_ipv6=0",
            "--network",
            self.spec.name,
            "--name",
            f"{self.spec.name}-{name}",
            *options,
        )
        return station(docker("run", "--detach", *options, self.image), self.spec.name)

    def stop(self, one: Station) -> None:
        docker("rm", "--force", one.name)


def station(identity: str, network: str) -> Station:
    """A container by its id or name."""
    found = json.loads(docker("inspect", "--type", "container", identity))[0]
    address = IPv4Address(found["NetworkSettings"]["Networks"][network]["IPAddress"])
    return Station(found["Name"].removeprefix("/"), address, found["State"]["Pid"])


@contextlib.contextmanager
def network() -> Iterator[NetworkSpec]:
    """A network on a free subnet, as the daemon would have it made, and its end."""
    word = secrets.token_hex(3)
    subnet = _free(SUBNETS)
    spec = NetworkSpec(f"mfiso-{word}", subnet, subnet[1], list(subnet.subnets())[1], f"mfiso{word}")
    try:
        make_network(spec)
        yield spec
    finally:
        for container in docker("ps", "--all", "--quiet", "--filter", f"network={spec.name}").split():
            docker("rm", "--force", container)
        docker("network", "rm", spec.name)


def make_network(spec: NetworkSpec) -> None:
    options = ("--subnet", str(spec.subnet), "--gateway", str(spec.gateway), "--ip-range", str(spec.dynamic_range))
    docker("network", "create", *options, "--opt", f"com.docker.network.bridge.name={spec.bridge}", spec.name)


@contextlib.contextmanager
def made_world() -> Iterator[World]:
    with network() as spec:
        nobody = Station("", IPv4Address(0), 0)
        world = World(spec, tiny_image.ensure().id, nobody, nobody, nobody, 0)
        world.proxy = world.start("proxy", "--ip", str(spec.subnet[2]), "--publish", "8080")
        world.published = int(docker("port", world.proxy.name, "8080/tcp").splitlines()[0].rpartition(":")[2])
        world.a, world.b = world.start("a"), world.start("b")
        for one in (world.proxy, world.a, world.b):
            _wait_for_link_local(one)
        yield world


@contextlib.contextmanager
def outside(*further: str) -> Iterator[Station]:
    """A neighbour of this host, behind a link that is no bridge. It routes to the sessions' networks through the
    host, and answers on the `further` addresses too, which the host routes to it."""
    word, link = secrets.token_hex(3), _free(OUTSIDE)
    name, near, far = f"mfiso-{word}", link[1], link[2]
    run("ip", "netns", "add", name)
    holder = None
    try:
        run("ip", "link", "add", f"mfiso{word}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "address", "add", f"{near}/30", "dev", f"mfiso{word}")
        run("ip", "link", "set", f"mfiso{word}", "up")
        for address in (f"{far}/30", *(f"{one}/32" for one in further)):
            run("ip", "-n", name, "address", "add", address, "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", device, "up")
        run("ip", "-n", name, "route", "add", "default", "via", str(near))
        for one in further:
            run("ip", "route", "add", f"{one}/32", "via", str(far))
        holder = subprocess.Popen(["ip", "netns", "exec", name, "sleep", "infinity"])
        _wait_for_entry(holder.pid, name)
        yield Station(name, far, holder.pid)
    finally:
        if holder is not None:
            holder.kill()
            holder.wait()
        run("ip", "netns", "delete", name)


def _wait_for_link_local(one: Station) -> None:
    """Until duplicate address detection has let go of it, an IPv6 address is of no use. Raises TimeoutError."""
    deadline = time.monotonic() + 10
    while True:
        lines = Path(f"/proc/{one.process_id}/net/if_inet6").read_text(encoding="ascii").splitlines()
        flags = [int(words[4], 16) for words in map(str.split, lines) if words[5] == "eth0"]
        if flags and not any(flag & 0x40 for flag in flags):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{one.name} has no usable link-local address")
        time.sleep(0.02)


def _wait_for_entry(process_id: int, name: str) -> None:
    """`ip netns exec` needs a moment before it is in the namespace. Raises TimeoutError."""
    wanted, deadline = Path("/run/netns", name).stat().st_ino, time.monotonic() + 10
    while Path(f"/proc/{process_id}/ns/net").stat().st_ino != wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no process in {name}")
        os.sched_yield()


def run(*argv: str) -> str:
    """Run a program of the host and return its output. Raises CalledProcessError."""
    return subprocess.run(argv, capture_output=True, timeout=30, check=True, text=True).stdout


def _free(subnets: tuple[IPv4Network, ...]) -> IPv4Network:
    """One that no route of the host leads to."""
    routes = Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]
    taken = {IPv4Address(bytes.fromhex(line.split()[1])[::-1]) for line in routes}
    return secrets.choice([subnet for subnet in subnets if not any(address in subnet for address in taken)])
