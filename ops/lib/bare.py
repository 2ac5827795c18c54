"""Owns the floors that benchmarks stand on: a session's parts made and ended bare, without the daemon.

What is made bare has a real session's configuration, on the sessions' network, and a dataset of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import aiohttp
from common import Failure
from layout import Layout

BOOT_LIMIT_SECONDS = 60.0
# As the daemon does it: zfs-fuse loses itself when two commands mount at once, whoever starts them.
_TURNS = () if Path("/dev/zfs").exists() else ("flock", "-F", "/run/medforge-zfs-fuse.lock")


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def read(self) -> float:
        return 1000 * (time.perf_counter() - self._started)


class BareParts:
    """One container at a time, and any number of datasets, all gone after `clean`."""

    def __init__(self, layout: Layout, docker: aiohttp.ClientSession, *, zfs: bool) -> None:
        self._layout = layout
        self._docker = docker
        self._zfs = zfs
        self._tag = f"bench-{os.getpid()}"
        self._root = Path(f"/{layout.pool}/{self._tag}") if zfs else layout.state / self._tag
        self._template: dict[str, Any] = {}
        self.container: str | None = None

    async def prepare(self, session_container: str) -> None:
        """A parent for the datasets, and the configuration of a real session's container to copy."""
        if self._zfs:
            if not command("zfs", "create", "-o", f"mountpoint={self._root}", f"{self._layout.pool}/{self._tag}"):
                raise Failure(f"`zfs create {self._layout.pool}/{self._tag}` failed; see `zpool status -x`")
        else:
            self._root.mkdir()
        self._template = await self.ask("GET", f"/containers/{session_container}/json")

    def dataset(self, name: object) -> float:
        """Make a dataset, or a directory where there is no ZFS."""
        watch = Stopwatch()
        if self._zfs:
            if not command("zfs", "create", f"{self._layout.pool}/{self._tag}/{name}"):
                raise Failure(f"`zfs create {self._layout.pool}/{self._tag}/{name}` failed; see `zpool status -x`")
        else:
            (self._root / str(name)).mkdir()
        took = watch.read()
        os.chown(self._root / str(name), 1000, 1000)
        return took

    def snapshot(self, name: object) -> float:
        """Take a snapshot of a dataset; copy a directory where there is no ZFS."""
        watch = Stopwatch()
        if self._zfs:
            if not command("zfs", "snapshot", f"{self._layout.pool}/{self._tag}/{name}@bench"):
                raise Failure(f"`zfs snapshot` of {self._layout.pool}/{self._tag}/{name} failed; see `zpool status -x`")
        else:
            shutil.copytree(self._root / str(name), self._root / f"{name}@bench")
        return watch.read()

    async def start(self, name: object) -> tuple[float, float]:
        """Create and start a container on a dataset; how long that took, and how long its IDE from then on."""
        self.container = container = f"{self._tag}-{name}"
        body = self._request(container, self._root / str(name))
        watch = Stopwatch()
        await self.ask("POST", f"/containers/create?name={container}", body)
        await self.ask("POST", f"/containers/{container}/start")
        docker = watch.read()
        # Asking for the address is no part of the boot, but happens while it goes on.
        watch = Stopwatch()
        seen = await self.ask("GET", f"/containers/{container}/json")
        await _answers(seen["NetworkSettings"]["Networks"][self._layout.network]["IPAddress"])
        return docker, watch.read()

    async def stop(self, grace_seconds: int) -> float:
        watch = Stopwatch()
        await self.ask("POST", f"/containers/{self.container}/stop?t={grace_seconds}")
        return watch.read()

    async def kill_and_hear(self) -> float:
        """Kill the container; how long until the engine's stream of events says that it has died."""
        filters = f'{{"container":["{self.container}"],"event":["die"]}}'
        async with self._docker.get("http://docker/events", params={"filters": filters}) as events:
            watch = Stopwatch()
            await self.ask("POST", f"/containers/{self.container}/kill")
            await events.content.readline()
            return watch.read()

    async def remove(self) -> float:
        watch = Stopwatch()
        if self.container is not None:
            with contextlib.suppress(Failure):
                await self.ask("DELETE", f"/containers/{self.container}?force=1&v=1")
            self.container = None
        return watch.read()

    async def clean(self) -> None:
        await self.remove()
        if self._zfs:
            # A dataset stays busy for a moment after its container has gone.
            for _ in range(50):
                if command("zfs", "destroy", "-r", f"{self._layout.pool}/{self._tag}"):
                    break
                await asyncio.sleep(0.1)
        elif self._root.exists():
            shutil.rmtree(self._root)

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        async with self._docker.request(method, f"http://docker{path}", json=body) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise Failure(f"Docker refused {method} {path}: {text.strip()}")
            return await answer.json() if text.startswith("{") else {}

    def _request(self, name: str, path: Path) -> dict[str, Any]:
        host = dict(self._template["HostConfig"])
        host["Mounts"] = [{**mount, "Source": str(path)} for mount in host.get("Mounts") or []]
        host["Binds"] = [f"{path}:{bind.split(':', 1)[1]}" for bind in host.get("Binds") or []]
        return {
            **self._template["Config"],
            # Without the labels of a session, or the daemon would take it for one.
            "Labels": {},
            "Hostname": name,
            "HostConfig": host,
            "NetworkingConfig": {"EndpointsConfig": {self._layout.network: {}}},
        }


async def _answers(address: str) -> None:
    deadline = time.monotonic() + BOOT_LIMIT_SECONDS
    while time.monotonic() < deadline:
        try:
            reader, writer = await asyncio.open_connection(address, 8080)
        except OSError:
            await asyncio.sleep(0.002)
            continue
        try:
            writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            if (await reader.read(7)).startswith(b"HTTP/1."):
                return
        except OSError:
            continue
        finally:
            writer.close()
    raise Failure("the bare container's IDE did not answer; see docker logs")


def command(*argv: str) -> bool:
    """Run a zfs command in its turn; whether it succeeded."""
    return (
        subprocess.run([*_TURNS, *argv], check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        == 0
    )
