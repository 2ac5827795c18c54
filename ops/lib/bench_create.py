"""Owns `ops/bench create`: a session's create latency next to the floor of its parts, measured side by side.

Each round makes the parts bare and then a session through the daemon, so that a slow moment of the host hits both:

    docker   POST /containers/create + /start over the engine's socket, with the configuration of a real session
    dataset  `zfs create` (mkdir where there is no ZFS)
    boot     from the return of start until the IDE's port answers HTTP
    create   `sessions.create` over the daemon's socket, until it returns

The daemon's own overhead is create - (docker + dataset + boot).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from common import Failure, fail
from layout import Layout, layout_from_environment

from medforged.client import DaemonClient, DaemonError
from medforged.contract.methods import daemon_status, sessions_create, sessions_get, sessions_stop
from medforged.contract.sessions import CreateSession, Session, SessionRef, SessionStatus

_BOOT_LIMIT_SECONDS = 60.0


@dataclass
class Round:
    """Milliseconds."""

    docker: float
    dataset: float
    boot: float
    create: float

    @property
    def overhead(self) -> float:
        return self.create - (self.docker + self.dataset + self.boot)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="ops/bench create")
    parser.add_argument("--runs", type=int, default=20, help="rounds that count, after one that warms up (default 20)")
    options = parser.parse_args()
    layout = layout_from_environment()
    async with (
        DaemonClient(layout.daemon_socket) as daemon,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector("/var/run/docker.sock")) as docker,
    ):
        status = await daemon.call(daemon_status, daemon_status.params())
        if status.gpus_free == 0:
            raise Failure("there is no free GPU; stop a session first")
        workspaces = next(adapter.adapter for adapter in status.adapters if adapter.port == "workspaces")
        bench = Bench(layout, daemon, docker, zfs=workspaces not in ("directories", "simulated"))
        rounds = []
        try:
            await bench.prepare()
            for number in range(options.runs + 1):
                measured = await bench.round(number)
                if number:
                    rounds.append(measured)
                print(
                    f"{'warm-up' if not number else f'{number:7d}'}  docker {measured.docker:7.1f}  dataset "
                    f"{measured.dataset:6.1f}  boot {measured.boot:7.1f}  create {measured.create:7.1f}  overhead "
                    f"{measured.overhead:7.1f} ms",
                    flush=True,
                )
        finally:
            await bench.clean()
    report(rounds)


def report(rounds: list[Round]) -> None:
    print(f"\n{'':9s}{'median':>9s}{'p10':>9s}{'p90':>9s}   milliseconds, {len(rounds)} rounds")
    for name in ("docker", "dataset", "boot", "create", "overhead"):
        values = sorted(getattr(measured, name) for measured in rounds)
        tenth = max(0, round(len(values) * 0.1) - 1)
        print(f"{name:9s}{statistics.median(values):9.1f}{values[tenth]:9.1f}{values[-1 - tenth]:9.1f}")
    floor = statistics.median(measured.create - measured.overhead for measured in rounds)
    create = statistics.median(measured.create for measured in rounds)
    print(f"\ncreate / floor = {create / floor:.3f}")


class Bench:
    """One benchmark run and what it leaves to be cleaned."""

    def __init__(self, layout: Layout, daemon: DaemonClient, docker: aiohttp.ClientSession, *, zfs: bool) -> None:
        self._layout = layout
        self._daemon = daemon
        self._docker = docker
        self._zfs = zfs
        self._tag = f"bench-{os.getpid()}"
        # One person, so that each round makes one dataset: a newcomer's first session makes a second, their own.
        self._user = uuid4()
        self._root = Path(f"/{layout.pool}/{self._tag}") if zfs else layout.state / self._tag
        self._template: dict[str, Any] = {}
        self._container: str | None = None
        self._session: Session | None = None

    async def prepare(self) -> None:
        """A parent for the bare datasets, and a session whose container's configuration is copied."""
        if self._zfs:
            if not _command("zfs", "create", "-o", f"mountpoint={self._root}", f"{self._layout.pool}/{self._tag}"):
                raise Failure(f"`zfs create {self._layout.pool}/{self._tag}` failed; see `zpool status -x`")
        else:
            self._root.mkdir()
        session = await self._create()
        self._template = await self._ask("GET", f"/containers/mf-session-{session.slug}/json")
        await self._stop()

    async def round(self, number: int) -> Round:
        started = time.perf_counter()
        path = self._dataset(number)
        dataset = time.perf_counter() - started
        os.chown(path, 1000, 1000)
        docker, boot = await self._bare(number, path)
        started = time.perf_counter()
        await self._create()
        create = time.perf_counter() - started
        await self._stop()
        return Round(*(1000 * seconds for seconds in (docker, dataset, boot, create)))

    async def clean(self) -> None:
        await self._remove_container()
        if self._session is not None:
            await self._stop()
        if self._zfs:
            # A dataset stays busy for a moment after its container has gone.
            for _ in range(50):
                if _command("zfs", "destroy", "-r", f"{self._layout.pool}/{self._tag}"):
                    break
                await asyncio.sleep(0.1)
        elif self._root.exists():
            shutil.rmtree(self._root)

    def _dataset(self, number: int) -> Path:
        if self._zfs:
            if not _command("zfs", "create", f"{self._layout.pool}/{self._tag}/{number}"):
                raise Failure(f"`zfs create {self._layout.pool}/{self._tag}/{number}` failed; see `zpool status -x`")
        else:
            (self._root / str(number)).mkdir()
        return self._root / str(number)

    async def _bare(self, number: int, path: Path) -> tuple[float, float]:
        name = f"{self._tag}-{number}"
        host = dict(self._template["HostConfig"])
        host["Mounts"] = [{**mount, "Source": str(path)} for mount in host.get("Mounts") or []]
        host["Binds"] = [f"{path}:{bind.split(':', 1)[1]}" for bind in host.get("Binds") or []]
        body = {
            **self._template["Config"],
            # Without the labels of a session, or the daemon would take it for one.
            "Labels": {},
            "Hostname": name,
            "HostConfig": host,
            "NetworkingConfig": {"EndpointsConfig": {self._layout.network: {}}},
        }
        self._container = name
        started = time.perf_counter()
        await self._ask("POST", f"/containers/create?name={name}", body)
        await self._ask("POST", f"/containers/{name}/start")
        docker = time.perf_counter() - started
        # Asking for the address is no part of the boot, but happens while it goes on.
        booting = time.perf_counter()
        seen = await self._ask("GET", f"/containers/{name}/json")
        await _answers(seen["NetworkSettings"]["Networks"][self._layout.network]["IPAddress"])
        boot = time.perf_counter() - booting
        await self._remove_container()
        return docker, boot

    async def _create(self) -> Session:
        answer = await self._daemon.call(sessions_create, CreateSession(user_id=self._user))
        self._session = answer.session
        return answer.session

    async def _stop(self) -> None:
        assert self._session is not None
        reference = SessionRef(session_id=self._session.id)
        await self._daemon.call(sessions_stop, reference)
        while (await self._daemon.call(sessions_get, reference)).session.status not in (
            SessionStatus.STOPPED,
            SessionStatus.ERROR,
        ):
            await asyncio.sleep(0.05)
        self._session = None

    async def _remove_container(self) -> None:
        if self._container is not None:
            with contextlib.suppress(Failure):
                await self._ask("DELETE", f"/containers/{self._container}?force=1&v=1")
            self._container = None

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        async with self._docker.request(method, f"http://docker{path}", json=body) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise Failure(f"Docker refused {method} {path}: {text.strip()}")
            return await answer.json() if text.startswith("{") else {}


async def _answers(address: str) -> None:
    deadline = time.monotonic() + _BOOT_LIMIT_SECONDS
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


# As the daemon does it: zfs-fuse loses itself when two commands mount at once, whoever starts them.
_TURNS = () if Path("/dev/zfs").exists() else ("flock", "-F", "/run/medforge-zfs-fuse.lock")


def _command(*argv: str) -> bool:
    """Run a zfs command in its turn; whether it succeeded."""
    return (
        subprocess.run([*_TURNS, *argv], check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        == 0
    )


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (Failure, DaemonError) as error:
        fail(error if isinstance(error, Failure) else Failure(str(error)))
    except subprocess.CalledProcessError as error:
        fail(Failure(str(error)))
    except KeyboardInterrupt:
        sys.exit(130)
