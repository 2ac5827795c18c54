"""Owns what every drill ends with: the host, looked at from outside, agrees with the records, and nothing is left over.

`agrees` waits until nothing is wrong, and fails with what is; `Watcher` tells when each change was told.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from medforged.adapters.iptables.rules import chain_names
from medforged.client import DaemonClient, watch_forever
from medforged.contract.daemon import GetStatus, Health
from medforged.contract.gpus import GpuHealth
from medforged.contract.methods import daemon_health, gpus_list, orphans_list, sessions_list
from medforged.contract.sessions import ListSessions, Session, SessionStatus
from medforged.contract.watch import SessionChanged, Synced
from tests.host.drill_daemon import ACTIVE, ENDED, DrillDaemon
from tests.host.installation import INSTANCE, POOL, Installation, docker

_SNAPSHOT = re.compile(r"(stop|death)-\d{9,}")


@dataclass(frozen=True)
class Ground:
    """Where a drill looks. `run` runs a program where the bridge is; `others` are containers on it that are no sessions;
    sessions in `before` are not looked at."""

    client: DaemonClient
    docker: Callable[..., str]
    run: Callable[..., str]
    instance: str
    network: str
    bridge: str
    root: str
    pid: Callable[[], int]
    others: int = 0
    before: frozenset[UUID] = frozenset()


def ground_of(daemon: DrillDaemon) -> Ground:
    return Ground(
        client=daemon.client,
        docker=daemon.engine.docker,
        run=daemon.engine.run,
        instance=daemon.instance,
        network=daemon.network,
        bridge=daemon.bridge,
        root=f"{daemon.pool}/{daemon.root}",
        pid=lambda: daemon.pid,
    )


@asynccontextmanager
async def ground_of_installation(installation: Installation) -> AsyncIterator[Ground]:
    def run(*argv: str) -> str:
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout

    async with DaemonClient(installation.daemon_socket) as client:
        yield Ground(
            client=client,
            docker=docker,
            run=run,
            instance=INSTANCE,
            network=installation.network,
            bridge=f"mf-{INSTANCE}"[:15],
            root=f"{POOL}/medforge/workspaces",
            pid=lambda: installation.process("daemon"),
            others=1,
            before=frozenset([session.id async for session in every_session(client)]),
        )


async def every_session(client: DaemonClient) -> AsyncIterator[Session]:
    """Newest first, page by page."""
    last: Session | None = None
    while True:
        question = ListSessions(limit=500)
        if last is not None:
            question = ListSessions(limit=500, before_created_at=last.created_at, before_id=last.id)
        page = await client.call(sessions_list, question)
        for session in page.sessions:
            yield session
        if not page.has_more:
            return
        last = page.sessions[-1]


async def agrees(ground: Ground, seconds: float = 30.0) -> None:
    """Wait until nothing is wrong. Raises AssertionError with everything that still is."""
    deadline = time.monotonic() + seconds
    while wrong := await faults(ground):
        assert time.monotonic() < deadline, "\n".join(wrong)
        await asyncio.sleep(0.1)


async def faults(ground: Ground) -> list[str]:
    """One sentence for everything that is not as the records say."""
    sessions = [session async for session in every_session(ground.client) if session.id not in ground.before]
    active = [session for session in sessions if session.status in ACTIVE]
    return [
        *await unwell(ground),
        *await _orphans(ground),
        *await _gpus(ground, active),
        *await asyncio.to_thread(_containers, ground, active),
        *await asyncio.to_thread(_storage, ground, sessions),
        *await asyncio.to_thread(_network, ground),
        *_processes(ground),
    ]


async def unwell(ground: Ground) -> list[str]:
    """What the daemon says of its parts that are not well. Raises DaemonError."""
    health = await ground.client.call(daemon_health, GetStatus())
    return [f"{check.name} is not well: {check.message}" for check in health.checks if check.health is not Health.OK]


async def _orphans(ground: Ground) -> Iterator[str]:
    orphans = await ground.client.call(orphans_list, orphans_list.params())
    wrong = [f"orphan {orphan.kind} {orphan.name}: {orphan.reason}" for orphan in orphans.orphans]
    wrong += [f"cannot look for orphans: {problem}" for problem in orphans.problems]
    return iter(wrong)


async def _gpus(ground: Ground, active: list[Session]) -> Iterator[str]:
    listed = (await ground.client.call(gpus_list, gpus_list.params())).gpus
    held = Counter(session.gpu_id for session in active)
    wrong = [f"GPU {gpu} has {number} active sessions" for gpu, number in held.items() if number > 1]
    holders = {session.gpu_id: session.id for session in active}
    for gpu in listed:
        if gpu.session_id != holders.get(gpu.id):
            wrong.append(f"GPU {gpu.id} is listed with {gpu.session_id}, and the records say {holders.get(gpu.id)}")
        if gpu.quarantine is not None or gpu.health is not GpuHealth.HEALTHY:
            wrong.append(f"GPU {gpu.id} is out of use: {gpu.quarantine or gpu.reason}")
    return iter(wrong)


def _containers(ground: Ground, active: list[Session]) -> Iterator[str]:
    template = '{{.Names}} {{.State}} {{.Label "dev.medforge.session"}}'
    label = f"label=dev.medforge.instance={ground.instance}"
    rows = [row.split() for row in ground.docker("ps", "--all", "--filter", label, "--format", template).splitlines()]
    found = {row[0]: row[1] for row in rows if len(row) == 3}
    for session in active:
        state = found.pop(f"mf-session-{session.slug}", "missing")
        if session.status is SessionStatus.RUNNING and state != "running":
            yield f"session {session.slug} is running and its container {state}"
        if session.status is not SessionStatus.RUNNING:
            yield f"session {session.slug} is {session.status} ({session.step})"
    yield from (f"container {name} ({state}) has no active session" for name, state in found.items())


def _storage(ground: Ground, sessions: list[Session]) -> Iterator[str]:
    listed = ground.run("zfs", "list", "-H", "-r", "-t", "all", "-o", "name", ground.root).splitlines()
    datasets = {name for name in listed if "@" not in name}
    snapshots: dict[str, list[str]] = {}
    for name in listed:
        dataset, at, snapshot = name.partition("@")
        if at:
            snapshots.setdefault(dataset, []).append(snapshot)
    mounted = {line.split()[0] for line in Path("/proc/mounts").read_text().splitlines()}
    for session in sessions:
        there = session.workspace_zfs in datasets
        kept = snapshots.get(session.workspace_zfs, [])
        if session.started_at is not None and not (there and session.workspace_zfs in mounted):
            yield f"the workspace of {session.slug} is {'not mounted' if there else 'gone'}"
        failed = (session.error_message or "").startswith("create failed")
        if session.status in ENDED and session.started_at is None and there and failed:
            yield f"the workspace of {session.slug}, which never ran, is left"
        if session.status is SessionStatus.RUNNING and kept:
            yield f"{session.slug} runs and has the snapshots {kept}"
        kept_once = len(kept) == 1 and _SNAPSHOT.fullmatch(kept[0])
        if "snapshot failed: " in (session.error_message or ""):
            # Its record says so, and its files are there.
            kept_once = not kept
        # One that was interrupted before it ran has a workspace to keep only if it came so far.
        if session.status in ENDED and (session.started_at is not None or there) and not (kept_once or failed):
            yield f"{session.slug} has ended with the snapshots {kept}: {session.error_message}"
    yield from (
        f"{source} is mounted and no dataset" for source in mounted - datasets if source.startswith(ground.root)
    )


def _network(ground: Ground) -> Iterator[str]:
    ports = {
        line.split(":")[1].strip().partition("@")[0] for line in _links(ground) if f" master {ground.bridge} " in line
    }
    attached = len(ground.docker("ps", "--quiet", "--filter", f"network={ground.network}").split())
    if len(ports) != attached:
        yield f"the bridge has the ports {sorted(ports)} and the network {attached} containers"
    for program in ("iptables-legacy", "ip6tables-legacy"):
        rules = ground.run(program, "-S").splitlines()
        for hook, chain in chain_names(ground.instance, ground.network).items():
            jumps = sum(rule.startswith(f"-A {hook} ") and chain in rule for rule in rules)
            if f"-N {chain}" not in rules or jumps != 1:
                yield f"{program}: chain {chain} is gone, or has {jumps} jumps to it"


def _links(ground: Ground) -> list[str]:
    return ground.run("ip", "-oneline", "link", "show").splitlines()


def _processes(ground: Ground) -> Iterator[str]:
    """Programs that the daemon has started and that have not ended."""
    for task in Path(f"/proc/{ground.pid()}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield f"process {child} of the daemon is left"


@dataclass(frozen=True)
class Footprint:
    """What a process has: open files, threads, and resident memory in bytes."""

    files: int
    threads: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return cls(
            files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
            threads=int(status["Threads"]),
            memory=int(status["VmRSS"].split()[0]) * 1024,
        )


@dataclass
class Watcher:
    """Hears every change. Two active sessions on one GPU at any time are noted in `doubled`."""

    client: DaemonClient
    doubled: list[str] = field(default_factory=list)
    used: Counter[int] = field(default_factory=Counter)
    _at: dict[tuple[UUID, SessionStatus], float] = field(default_factory=dict)
    _holders: dict[int, Session] = field(default_factory=dict)
    _heard: asyncio.Condition = field(default_factory=asyncio.Condition)
    _synced: bool = False

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Watcher]:
        task = asyncio.create_task(self._follow())
        try:
            async with self._heard:
                await asyncio.wait_for(self._heard.wait_for(lambda: self._synced), 20)
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def reached(self, session: Session, *statuses: SessionStatus, seconds: float = 60.0) -> float:
        """When (monotonic) a session was told to be in one of these. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._heard:
            await self._heard.wait_for(lambda: any((session.id, status) in self._at for status in statuses))
        return min(self._at[session.id, status] for status in statuses if (session.id, status) in self._at)

    async def _follow(self) -> None:
        async with aclosing(watch_forever(self.client)) as events:
            async for event in events:
                async with self._heard:
                    match event:
                        case Synced():
                            self._synced = True
                        case SessionChanged(session=session):
                            self._note(session)
                    self._heard.notify_all()

    def _note(self, session: Session) -> None:
        self._at.setdefault((session.id, session.status), time.monotonic())
        holder = self._holders.get(session.gpu_id)
        if session.status in ENDED:
            if holder is not None and holder.id == session.id:
                del self._holders[session.gpu_id]
        elif holder is None:
            self._holders[session.gpu_id] = session
            self.used[session.gpu_id] += 1
        elif holder.id != session.id:
            self.doubled.append(f"GPU {session.gpu_id}: {holder.slug} and {session.slug}")


def note_of(session: dict[str, Any]) -> str:
    """What a test has written into the file `note` of a workspace, read on the host."""
    return Path("/", session["workspace_zfs"], "note").read_text()
