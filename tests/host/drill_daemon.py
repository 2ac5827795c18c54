"""Owns a daemon of its own for drills: medforged on a host apart, with real containers, isolation and storage."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from medforged.client import DaemonClient, DaemonError
from medforged.contract.daemon import GetStatus, Health
from medforged.contract.methods import (
    daemon_health,
    sessions_create,
    sessions_get,
    sessions_list,
    sessions_logs,
    sessions_stop,
)
from medforged.contract.sessions import CreateSession, ListSessions, Session, SessionLogs, SessionRef, SessionStatus
from tests.host import tiny_image
from tests.host.drill_engine import Engine
from tests.host.installation import ROOT, until
from tests.host.zfs_pool import ScratchPool

ENDED = (SessionStatus.STOPPED, SessionStatus.ERROR)
ACTIVE = (SessionStatus.STARTING, SessionStatus.RUNNING, SessionStatus.STOPPING)
_PROGRAM = ROOT / ".venv" / "bin" / "medforged"
DaemonMaker = Callable[..., "DrillDaemon"]
Sections = Mapping[str, Mapping[str, object]]


class DrillDaemon:
    """`state` is its state directory; `settings` go on top of what every drill has, section by section. `config` is the
    file that says them all."""

    def __init__(
        self,
        engine: Engine,
        pool: ScratchPool,
        state: Path,
        *,
        settings: Sections | None = None,
        environment: Mapping[str, str] | None = None,
        within: tuple[str, ...] = (),
    ) -> None:
        self.engine = engine
        self.pool = pool.name
        self.instance = f"mfdrill-{secrets.token_hex(3)}"
        self.network, self.bridge = f"{self.instance}-net", f"mfd{self.instance[-6:]}"
        self.root = f"{self.instance}/workspaces"
        self.state = state
        self.socket = engine.directory / f"{self.instance}.sock"
        self.log = engine.directory / f"{self.instance}.log"
        self._mount_root = pool.directory / self.instance
        self.client = DaemonClient(self.socket)
        self._within = within
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.config = engine.directory / f"{self.instance}.toml"
        prefix = f"172.28.{engine.next_number()}"
        basis: dict[str, dict[str, object]] = {
            "daemon": {
                "instance": self.instance,
                "socket": str(self.socket),
                "socket_group": "",
                "state_directory": str(state),
                "log_format": "json",
            },
            "adapters": {"gpus": "simulated"},
            "workspaces": {
                "pool": pool.name,
                "root": self.root,
                "mount_root": str(self._mount_root),
                "directory": str(engine.directory / self.instance),
                "quota_bytes": 0,
            },
            "network": {
                "name": self.network,
                "bridge": self.bridge,
                "subnet": f"{prefix}.0/24",
                "proxy_address": f"{prefix}.2",
            },
            "containers": {
                "docker_socket": str(engine.socket),
                "memory_bytes": 64 * 1024**2,
                "shm_bytes": 16 * 1024**2,
                "cpus": 1.0,
                "pids": 64,
                "stop_grace_seconds": 2.0,
            },
            "packs": {"default_image": tiny_image.ensure().reference},
        }
        for section, values in (settings or {}).items():
            basis.setdefault(section, {}).update(values)
        self.settings = basis
        self.write()

    def write(self) -> None:
        """The settings as they are now, for the next start."""
        lines = []
        for section, values in self.settings.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self.config.write_text("\n".join(lines) + "\n")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.engine.enter, *self._within, _PROGRAM, "--config", self.config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    async def start(self) -> None:
        self.launch()
        await self.healthy()

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)

    def release(self) -> None:
        """Take its rules and network off the host; it has to be stopped."""
        done = subprocess.run(
            [*self.engine.enter, _PROGRAM, "--config", self.config, "--release"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr

    async def clear(self) -> None:
        """End its sessions, and the connections to it."""
        try:
            if self.running:
                await asyncio.gather(*(self.end(session) for session in await self.sessions(*ACTIVE)))
        finally:
            await self.client.close()

    def close(self) -> None:
        """End itself and what it made on the host."""
        if self.running:
            self.stop()
        label = f"label=dev.medforge.instance={self.instance}"
        for container in self.engine.docker("ps", "--all", "--quiet", "--filter", label).split():
            self.engine.docker("rm", "--force", container)
        self.release()
        shutil.rmtree(self.state, ignore_errors=True)

    async def healthy(self, seconds: float = 60.0) -> None:
        """Wait until every part is well."""

        async def well() -> bool:
            assert self.running, self.log.read_text()[-3000:]
            return not await self.problems()

        await until(well, seconds)

    async def problems(self) -> dict[str, str]:
        """What health says of each part that is not well; a daemon that does not answer is one."""
        try:
            answer = await self.client.call(daemon_health, GetStatus())
        except DaemonError as error:
            return {"daemon": error.message}
        return {check.name: check.message for check in answer.checks if check.health is not Health.OK}

    async def create(self, user: UUID | None = None) -> Session:
        return (await self.client.call(sessions_create, CreateSession(user_id=user or uuid4()))).session

    async def read(self, session: Session) -> Session:
        return (await self.client.call(sessions_get, SessionRef(session_id=session.id))).session

    async def sessions(self, *statuses: SessionStatus) -> list[Session]:
        """Newest first."""
        page = await self.client.call(sessions_list, ListSessions(statuses=list(statuses), limit=500))
        return page.sessions

    async def ask_to_stop(self, session: Session) -> Session:
        return (await self.client.call(sessions_stop, SessionRef(session_id=session.id))).session

    async def ended(self, session: Session, seconds: float = 60.0) -> Session:
        async def has_ended() -> bool:
            return (await self.read(session)).status in ENDED

        await until(has_ended, seconds)
        return await self.read(session)

    async def end(self, session: Session) -> Session:
        """Ask it to stop, and wait until it has ended."""
        await self.ask_to_stop(session)
        return await self.ended(session)

    async def logs(self, session: Session) -> str:
        return (await self.client.call(sessions_logs, SessionLogs(session_id=session.id))).text

    def events(self, **fields: object) -> list[dict[str, Any]]:
        """What the log says with these fields."""
        entries = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [entry for entry in entries if all(entry.get(name) == value for name, value in fields.items())]

    def inside(self, session: Session, *argv: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a program in a session's container, as the tenant would in a terminal."""
        return subprocess.run(
            ["docker", "--host", f"unix://{self.engine.socket}", "exec", f"mf-session-{session.slug}", *argv],
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )

    def served_by(self, session: Session) -> int:
        """The process that the container's init has started: when it ends, the container does."""
        init = self.process_of(session)
        (child,) = Path(f"/proc/{init}/task/{init}/children").read_text().split()
        return int(child)

    def workspace(self, session: Session) -> Path:
        """Where the session's files are on the host."""
        return self._mount_root / str(session.user_id) / str(session.id)

    def process_of(self, session: Session) -> int:
        """The container's first process, as the host numbers it."""
        return int(self.engine.docker("inspect", "--format", "{{.State.Pid}}", f"mf-session-{session.slug}"))


async def gathered(*calls: Any) -> list[Any]:
    """All results, errors of the daemon among them."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, DaemonError):
            raise result
    return list(results)
