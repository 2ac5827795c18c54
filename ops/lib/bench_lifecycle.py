"""Owns `ops/bench lifecycle`: how long a session's turns take, each next to the floor of its parts in the same run.

On a running installation, with every GPU but one taken:

    create    `sessions.create` until it returns; floor: docker create + start, dataset, the IDE's own boot
    stop      from the request until the GPU is free; floor: docker stop, snapshot, docker rm
    death     from `docker kill` until the session is `error`; floor: docker kill to the engine's event, snapshot, rm
    restart   from SIGKILL of the daemon until it is healthy; floor: the bare program's start, which checks its settings

With `--simulated`, on a simulated host of its own, with so many sessions for each number given: what the daemon itself
costs, `reconcile` included, and how that grows. The floor is an answer of the daemon that does nothing (`packs.list`)
and as many bare SQLite transactions as the turn takes; for a death also half the interval in which a simulated host is
looked at for changes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
from bare import BareParts, Stopwatch
from common import ROOT, Failure, fail
from layout import Layout, layout_from_environment

from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.host import POLL_SECONDS, SimulatedHost
from medforged.client import DaemonClient, DaemonError
from medforged.contract.daemon import GetStatus, Health
from medforged.contract.methods import (
    daemon_health,
    daemon_status,
    gpus_list,
    packs_list,
    sessions_create,
    sessions_list,
    sessions_reconcile,
    sessions_stop,
)
from medforged.contract.sessions import CreateSession, ListSessions, Session, SessionRef, SessionStatus
from medforged.contract.watch import SessionChanged, Synced

_ENDED = (SessionStatus.STOPPED, SessionStatus.ERROR)
_LIMIT_SECONDS = 120.0
# What the daemon writes: allocation, two steps and `running`; the wish, four steps and the end.
_CREATE_TRANSACTIONS, _STOP_TRANSACTIONS = 4, 6
_PROGRAM = ROOT / ".venv" / "bin" / "medforged"


class Table:
    """Milliseconds by name, each with its floor."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[list[float], list[float]]] = {}

    def add(self, name: str, took: float, floor: float) -> None:
        values, floors = self._rows.setdefault(name, ([], []))
        values.append(took)
        floors.append(floor)

    def show(self, title: str) -> None:
        print(f"\n{title}\n{'':12s}{'median':>9s}{'p99':>9s}{'max':>9s}{'floor':>9s}{'ratio':>8s}   milliseconds")
        for name, (values, floors) in self._rows.items():
            middle, floor = statistics.median(values), statistics.median(floors)
            p99 = sorted(values)[min(len(values) - 1, round(len(values) * 0.99))]
            figures = f"{middle:9.1f}{p99:9.1f}{max(values):9.1f}{floor:9.1f}{middle / floor:8.2f}"
            print(f"{name:12s}{figures}   of {len(values)}", flush=True)


class Watcher:
    """Hears of every change, so that nothing is asked in a loop while it is measured."""

    def __init__(self, daemon: DaemonClient) -> None:
        self._daemon = daemon
        self._waiting: dict[UUID, asyncio.Future[Session]] = {}
        self._synced = asyncio.Event()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._follow())
        try:
            await asyncio.wait_for(self._synced.wait(), 10)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def end_of(self, session: Session) -> asyncio.Future[Session]:
        return self._waiting.setdefault(session.id, asyncio.get_running_loop().create_future())

    async def _follow(self) -> None:
        async with aclosing(self._daemon.watch()) as events:
            async for event in events:
                match event:
                    case Synced():
                        self._synced.set()
                    case SessionChanged(session=session) if session.status in _ENDED and session.id in self._waiting:
                        self._waiting.pop(session.id).set_result(session)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="ops/bench lifecycle")
    parser.add_argument("--runs", type=int, default=20, help="rounds of each measurement (default 20)")
    parser.add_argument(
        "--simulated", type=int, nargs="*", metavar="N", help="a simulated host with N sessions (default 7 and 500)"
    )
    options = parser.parse_args()
    if options.simulated is None:
        await _real(options.runs)
    else:
        for sessions in options.simulated or [7, 500]:
            await _simulated(sessions, options.runs)


async def _real(runs: int) -> None:
    layout = layout_from_environment()
    table = Table()
    async with (
        DaemonClient(layout.daemon_socket) as daemon,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector("/var/run/docker.sock")) as docker,
    ):
        status = await daemon.call(daemon_status, GetStatus())
        if status.gpus_free != status.gpus_total:
            raise Failure("sessions are active; stop them first (`medforgectl sessions stop --all`)")
        workspaces = next(adapter.adapter for adapter in status.adapters if adapter.port == "workspaces")
        bare = BareParts(layout, docker, zfs=workspaces not in ("directories", "simulated"))
        # One person for what is measured, so that each round makes one dataset, and others who keep the GPUs busy.
        person = uuid4()
        others = [await _create(daemon, uuid4()) for _ in range(status.gpus_total - 1)]
        try:
            if others:
                await bare.prepare(f"mf-session-{others[0].slug}")
            else:
                first = await _create(daemon, person)
                await bare.prepare(f"mf-session-{first.slug}")
                await _stop(daemon, first)
            watcher = Watcher(daemon)
            async with watcher.following():
                for number in range(runs + 1):
                    # The first round warms up.
                    await _round(daemon, watcher, bare, person, number, table if number else Table())
            await _restarts(layout, daemon, table, max(3, runs // 4))
        finally:
            await bare.clean()
            for session in others:
                await _stop(daemon, session)
    table.show(f"a host with {status.gpus_total} GPUs, all but one in use")


async def _round(
    daemon: DaemonClient, watcher: Watcher, bare: BareParts, person: UUID, number: int, table: Table
) -> None:
    made = bare.dataset(f"{number}-s") + sum(await bare.start(f"{number}-s"))
    watch = Stopwatch()
    session = await _create(daemon, person)
    table.add("create", watch.read(), made)
    ended = await bare.stop(10) + bare.snapshot(f"{number}-s") + await bare.remove()
    ending = watcher.end_of(session)
    watch = Stopwatch()
    await daemon.call(sessions_stop, SessionRef(session_id=session.id))
    await asyncio.wait_for(ending, _LIMIT_SECONDS)
    table.add("stop", watch.read(), ended)

    bare.dataset(f"{number}-d")
    await bare.start(f"{number}-d")
    died = await bare.kill_and_hear() + bare.snapshot(f"{number}-d") + await bare.remove()
    session = await _create(daemon, person)
    ending = watcher.end_of(session)
    watch = Stopwatch()
    await bare.ask("POST", f"/containers/mf-session-{session.slug}/kill")
    await asyncio.wait_for(ending, _LIMIT_SECONDS)
    table.add("death", watch.read(), died)


async def _restarts(layout: Layout, daemon: DaemonClient, table: Table, runs: int) -> None:
    pid_file = layout.daemon_pid_file
    if not pid_file.exists():
        raise Failure(f"{pid_file} is missing: the daemon has no keeper that starts it again")
    for _ in range(runs):
        watch = Stopwatch()
        subprocess.run(
            [_PROGRAM, "--config", layout.state / "medforged.toml", "--check"], check=True, stdout=subprocess.DEVNULL
        )
        floor = watch.read()
        watch = Stopwatch()
        os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
        await _healthy(daemon)
        table.add("restart", watch.read(), floor)


async def _simulated(sessions: int, runs: int) -> None:
    table = Table()
    with tempfile.TemporaryDirectory(prefix="medforge-bench-") as name:
        directory = Path(name)
        log = (directory / "daemon.log").open("w")
        environment = {
            **os.environ,
            "MEDFORGED_GPUS__SIMULATED_COUNT": str(sessions),
            "MEDFORGED_NETWORK__SUBNET": "172.30.0.0/20",
            "MEDFORGED_NETWORK__PROXY_ADDRESS": "172.30.0.2",
        }

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [_PROGRAM, "--simulate", directory, *arguments], env=environment, stdout=log, stderr=log
            )

        process = start()
        try:
            async with DaemonClient(directory / "medforged.sock") as daemon:
                await _healthy(daemon)
                await _measure_simulated(daemon, directory, sessions, runs, table)
                for _ in range(max(3, runs // 4)):
                    watch = Stopwatch()
                    start("--check").wait()
                    floor = watch.read()
                    watch = Stopwatch()
                    process.kill()
                    process.wait()
                    process = start()
                    await _healthy(daemon)
                    table.add("restart", watch.read(), floor)
                running = await daemon.call(sessions_list, ListSessions(statuses=[SessionStatus.RUNNING], limit=500))
                if len(running.sessions) != min(500, sessions):
                    raise Failure(f"{len(running.sessions)} of {sessions} sessions run after the restarts")
        finally:
            process.kill()
            process.wait()
            log.close()
    table.show(f"a simulated host with {sessions} active sessions")


async def _measure_simulated(daemon: DaemonClient, directory: Path, sessions: int, runs: int, table: Table) -> None:
    active = [await _create(daemon, uuid4()) for _ in range(sessions)]
    host = SimulatedRuntime(host=SimulatedHost(directory / "simulated-host"))

    async def floor(transactions: int) -> float:
        watch = Stopwatch()
        await daemon.call(packs_list, packs_list.params())
        return watch.read() + _transactions(directory / "bench.db", transactions)

    for _ in range(runs):
        least = await floor(0)
        report = await daemon.call(sessions_reconcile, sessions_reconcile.params())
        table.add("reconcile", 1000 * report.seconds, least)
    watcher = Watcher(daemon)
    async with watcher.following():
        for number in range(runs):
            place = number % sessions
            least = await floor(_STOP_TRANSACTIONS)
            ending = watcher.end_of(active[place])
            watch = Stopwatch()
            await daemon.call(sessions_stop, SessionRef(session_id=active[place].id))
            await asyncio.wait_for(ending, _LIMIT_SECONDS)
            table.add("stop", watch.read(), least)
            least = await floor(_CREATE_TRANSACTIONS)
            watch = Stopwatch()
            active[place] = await _create(daemon, uuid4())
            table.add("create", watch.read(), least)
            least = await floor(_STOP_TRANSACTIONS) + 1000 * POLL_SECONDS / 2
            ending = watcher.end_of(active[place])
            watch = Stopwatch()
            host.die(f"mf-session-{active[place].slug}")
            await asyncio.wait_for(ending, _LIMIT_SECONDS)
            table.add("death", watch.read(), least)
            active[place] = await _create(daemon, uuid4())
    free = [gpu for gpu in (await daemon.call(gpus_list, gpus_list.params())).gpus if gpu.session_id is None]
    if free:
        raise Failure(f"{len(free)} GPUs are free that should be held")


def _transactions(path: Path, number: int) -> float:
    """How long so many durable transactions take, with nothing around them."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)")
        watch = Stopwatch()
        for count in range(number):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO numbers VALUES (?)", (count,))
            connection.execute("COMMIT")
        return watch.read()
    finally:
        connection.close()


async def _healthy(daemon: DaemonClient) -> None:
    async def well() -> bool:
        try:
            return (await daemon.call(daemon_health, GetStatus())).health is Health.OK
        except DaemonError:
            return False

    await _until(well)


async def _create(daemon: DaemonClient, person: UUID) -> Session:
    return (await daemon.call(sessions_create, CreateSession(user_id=person))).session


async def _stop(daemon: DaemonClient, session: Session) -> None:
    reference = SessionRef(session_id=session.id)
    await daemon.call(sessions_stop, reference)

    async def ended() -> bool:
        return not (await daemon.call(sessions_stop, reference)).requested

    await _until(ended)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_LIMIT_SECONDS):
        while not await condition():
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (Failure, DaemonError) as error:
        fail(error if isinstance(error, Failure) else Failure(str(error)))
    except TimeoutError:
        fail(Failure("something did not happen in time; see the daemon's log"))
    except subprocess.CalledProcessError as error:
        fail(Failure(str(error)))
    except KeyboardInterrupt:
        sys.exit(130)
