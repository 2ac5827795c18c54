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
import statistics
import subprocess
import sys
from dataclasses import dataclass
from uuid import uuid4

import aiohttp
from bare import BareParts, Stopwatch
from common import Failure, fail
from layout import layout_from_environment

from medforged.client import DaemonClient, DaemonError
from medforged.contract.methods import daemon_status, sessions_create, sessions_get, sessions_stop
from medforged.contract.sessions import CreateSession, Session, SessionRef, SessionStatus


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
        bare = BareParts(layout, docker, zfs=workspaces not in ("directories", "simulated"))
        bench = Bench(daemon, bare)
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

    def __init__(self, daemon: DaemonClient, bare: BareParts) -> None:
        self._daemon = daemon
        self._bare = bare
        # One person, so that each round makes one dataset: a newcomer's first session makes a second, their own.
        self._user = uuid4()
        self._session: Session | None = None

    async def prepare(self) -> None:
        """A session whose container's configuration is copied."""
        session = await self._create()
        await self._bare.prepare(f"mf-session-{session.slug}")
        await self._stop()

    async def round(self, number: int) -> Round:
        dataset = self._bare.dataset(number)
        docker, boot = await self._bare.start(number)
        await self._bare.remove()
        watch = Stopwatch()
        await self._create()
        create = watch.read()
        await self._stop()
        return Round(docker, dataset, boot, create)

    async def clean(self) -> None:
        if self._session is not None:
            await self._stop()
        await self._bare.clean()

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


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (Failure, DaemonError) as error:
        fail(error if isinstance(error, Failure) else Failure(str(error)))
    except subprocess.CalledProcessError as error:
        fail(Failure(str(error)))
    except KeyboardInterrupt:
        sys.exit(130)
