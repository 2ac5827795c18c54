"""Owns a host within the host: a network namespace with a bridge, a proxy and two sessions, for what would disturb others.

Its packet filter, interfaces and messages are its own, so tables can be flushed whole, and nobody else's interfaces
come and go. Threads and programs that a story starts are in it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from medforged.adapters.bridge.namespaces import inside, new_namespace
from medforged.domain.containers import Endpoint, SessionNetwork
from tests.host.isolation_world import Station, run

_SUBNET = IPv4Network("172.28.48.0/24")
_STORY_SECONDS = 100


class ApartHost:
    """`network` is what an engine would say of it; `instance` is its installation."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.instance = f"mfap-{secrets.token_hex(3)}"
        self.bridge = "mfap0"
        self.proxy_address = _SUBNET[2]
        self.stations: list[Station] = []
        run("ip", "link", "set", "lo", "up")
        self.make_bridge()
        self.proxy, self.a, self.b = (self.join(_SUBNET[last]) for last in (2, 128, 129))

    @property
    def network(self) -> SessionNetwork:
        endpoints = tuple(Endpoint(one.name, one.address, one.process_id) for one in self.stations)
        return SessionNetwork(self.instance, self.bridge, _SUBNET, _SUBNET[1], endpoints)

    def make_bridge(self) -> None:
        # With an address of its own, like an engine's: otherwise it takes on one of its ports'.
        run("ip", "link", "add", self.bridge, "address", "02:6d:00:00:00:01", "type", "bridge")
        run("ip", "address", "add", f"{_SUBNET[1]}/{_SUBNET.prefixlen}", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")

    def join(self, address: IPv4Address) -> Station:
        """A process in a network namespace of its own, with a port of the bridge that is called as it is."""
        name = f"mfap{address.packed[-1]}"
        held = self._stack.enter_context(process_apart())
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(held))
        run("ip", "link", "set", name, "master", self.bridge, "up")
        within = ("nsenter", f"--net=/proc/{held}/ns/net", "ip")
        run(*within, "address", "add", f"{address}/{_SUBNET.prefixlen}", "dev", "eth0")
        for device in ("lo", "eth0"):
            run(*within, "link", "set", device, "up")
        self.stations.append(Station(name, address, held))
        return self.stations[-1]


@contextlib.contextmanager
def process_apart() -> Iterator[int]:
    """A process in a network namespace of its own, by its id."""
    held = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        here, deadline = Path("/proc/thread-self/ns/net").stat().st_ino, time.monotonic() + 10
        while Path(f"/proc/{held.pid}/ns/net").stat().st_ino == here:
            if time.monotonic() > deadline:
                raise TimeoutError("unshare has made no namespace")
            time.sleep(0.002)
        yield held.pid
    finally:
        held.kill()
        held.wait()


def told_apart(story: Callable[[ApartHost], Awaitable[None]]) -> None:
    """Run a story on a host of its own. Raises what it raises."""

    async def limited(host: ApartHost) -> None:
        async with asyncio.timeout(_STORY_SECONDS):
            await story(host)

    def tell() -> None:
        with contextlib.ExitStack() as stack:
            asyncio.run(limited(ApartHost(stack)))

    with new_namespace() as namespace:
        inside(namespace, tell)
