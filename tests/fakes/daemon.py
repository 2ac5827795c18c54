"""A scripted daemon: a real HTTP server on a Unix socket that speaks the daemon's contract, for tests of its clients.

It keeps sessions in memory and behaves like a daemon that has nothing to do: a create runs at once, a stop waits for
`end`. Nothing is wrong with its host unless `orphans`, `problems`, `mismatches`, `gpus` and `rechecks` say so. Anything
else is scripted: `refuse` makes a method fail, `hold` makes it wait, `go_away` and `come_back` restart
it, `lose_streams` breaks the watch streams, `forget` makes the next resumption a whole list.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from aiohttp import web

from medforged.contract import daemon, gpus, orphans, packs, sessions
from medforged.contract.errors import HTTP_STATUS, ErrorBody, ErrorCode
from medforged.contract.methods import CORRELATION_HEADER, METHODS_BY_NAME, WATCH_PATH
from medforged.contract.sessions import Session, SessionStatus, SessionStep
from medforged.contract.watch import Heartbeat, SessionChanged, Synced, WatchEvent

__all__ = ["PACK", "Call", "FakeDaemon", "aged", "fake_daemon", "make_gpu", "make_session"]

PACK = packs.Pack(id=UUID(int=0x100), name="default", image="pack@sha256:" + "0" * 64)
ENDED = (SessionStatus.STOPPED, SessionStatus.ERROR)
# Where a session is on its way when nothing holds it up.
STEPS = {
    SessionStatus.STARTING: SessionStep.WORKSPACE,
    SessionStatus.RUNNING: SessionStep.SERVE,
    SessionStatus.STOPPING: SessionStep.STOP,
    SessionStatus.STOPPED: SessionStep.DONE,
    SessionStatus.ERROR: SessionStep.DONE,
}
_SLUG_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True)
class Call:
    """A call as it came in."""

    method: str
    params: Any
    correlation_id: str | None


def make_session(user_id: UUID | None = None, **changes: Any) -> Session:
    """A running session with plausible values."""
    session_id = changes.pop("id", uuid4())
    user_id = user_id or uuid4()
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "tier": sessions.Tier.PUBLIC,
        "pack_id": PACK.id,
        "status": SessionStatus.RUNNING,
        "step": STEPS[changes.get("status", SessionStatus.RUNNING)],
        "container_id": secrets.token_hex(32),
        "gpu_id": 0,
        "gpu_uuid": "GPU-" + str(uuid4()),
        "slug": "".join(secrets.choice(_SLUG_ALPHABET) for _ in range(8)),
        "workspace_zfs": f"tank/medforge/workspaces/{user_id}/{session_id}",
        "created_at": now,
        "started_at": now,
        "stopped_at": None,
        "error_message": None,
        "revision": 1,
    }
    return Session(id=session_id, user_id=user_id, **{**values, **changes})


def make_gpu(number: int, **changes: Any) -> gpus.Gpu:
    """A free and healthy GPU."""
    values: dict[str, Any] = {
        "uuid": f"GPU-{UUID(int=number)}",
        "index": number,
        "name": "NVIDIA RTX A6000",
        "pci_address": f"00000000:{number:02x}:00.0",
        "memory_total_bytes": 48 * 2**30,
        "memory_used_bytes": 0,
        "utilization_percent": 0,
        "temperature_celsius": 30,
        "power_milliwatts": None,
        "process_ids": [],
        "enabled": True,
        "health": gpus.GpuHealth.HEALTHY,
        "reason": None,
        "quarantine": None,
        "session_id": None,
    }
    return gpus.Gpu(id=number, **{**values, **changes})


@dataclass
class FakeDaemon:
    """One daemon. `calls` are all that came in; `sessions` all that there are, ended ones included."""

    socket: Path
    gpu_count: int = 2
    heartbeat_seconds: float = 0.05
    calls: list[Call] = field(default_factory=list)
    sessions: dict[UUID, Session] = field(default_factory=dict)
    epoch: UUID = field(default_factory=uuid4)
    revision: int = 0
    recovery_alive: bool = True
    muted: bool = False
    """Streams beat, but keep changes to themselves."""
    checks: list[daemon.Check] = field(default_factory=list)
    gpus: gpus.GpuList = field(init=False)
    rechecks: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What a look at a GPU changes about it, by GPU id."""
    orphans: list[orphans.Orphan] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    """Why an orphan cannot be removed, by its name; those that are not named here can."""
    problems: list[str] = field(default_factory=list)
    """What could not be looked at for orphans."""
    mismatches: list[sessions.ReconcileAction] = field(default_factory=list)
    """What every pass finds that does not match."""
    watchers: int = 0
    relists: int = 0
    _refusals: dict[str, tuple[ErrorCode, str]] = field(default_factory=dict)
    _gates: dict[str, asyncio.Event] = field(default_factory=dict)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _log: list[Session] = field(default_factory=list)
    _oldest: int = 0
    _generation: int = 0
    _runner: web.AppRunner | None = None

    def __post_init__(self) -> None:
        self.gpus = gpus.GpuList(gpus=[make_gpu(number) for number in range(self.gpu_count)], faults=[])

    # --- the script

    def refuse(self, method: str, code: ErrorCode, message: str = "cannot: scripted") -> None:
        """From now on the method fails so."""
        self._refusals[method] = (code, message)

    def allow(self, method: str) -> None:
        self._refusals.pop(method, None)

    def hold(self, method: str) -> asyncio.Event:
        """Calls of the method wait until the returned event is set."""
        return self._gates.setdefault(method, asyncio.Event())

    async def put(self, session: Session) -> Session:
        """Add or replace a record; its revision is counted here, and watchers are told."""
        async with self._changed:
            self.revision += 1
            session = msgspec.structs.replace(session, revision=self.revision)
            self.sessions[session.id] = session
            self._log.append(session)
            self._changed.notify_all()
        return session

    async def end(self, session_id: UUID, status: SessionStatus = SessionStatus.STOPPED) -> Session:
        """A session comes to its end."""
        session = self.sessions[session_id]
        return await self.put(_in_status(session, status, stopped_at=datetime.now(UTC)))

    def forget(self) -> None:
        """Changes up to now cannot be resumed any more."""
        self.revision += 1
        self._oldest = self.revision
        self._log.clear()

    def new_database(self) -> None:
        """Everything is gone, and revisions count from the start."""
        self.sessions.clear()
        self.forget()
        self.revision = self._oldest = 0
        self.epoch = uuid4()

    async def lose_streams(self) -> None:
        async with self._changed:
            self._generation += 1
            self._changed.notify_all()

    async def come_back(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/{method}", self._serve)
        app.router.add_get(WATCH_PATH, self._watch)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self.socket.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def go_away(self) -> None:
        await self.lose_streams()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.socket.unlink(missing_ok=True)

    def called(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    # --- the server

    async def _serve(self, request: web.Request) -> web.Response:
        correlation_id = request.headers.get(CORRELATION_HEADER)
        method = METHODS_BY_NAME.get(request.match_info["method"])
        if method is None:
            return _error(ErrorCode.UNKNOWN_METHOD, "no such method", correlation_id)
        try:
            params = msgspec.json.decode(await request.read(), type=method.params)
        except msgspec.MsgspecError as error:
            return _error(ErrorCode.BAD_REQUEST, str(error), correlation_id)
        self.calls.append(Call(method.name, params, correlation_id))
        if (gate := self._gates.get(method.name)) is not None:
            await gate.wait()
        if (refusal := self._refusals.get(method.name)) is not None:
            return _error(*refusal, correlation_id)
        answer: Callable[[Any], Any] = getattr(self, "_" + method.name.replace(".", "_"))
        result = answer(params)
        if asyncio.iscoroutine(result):
            result = await result
        if isinstance(result, ErrorCode):
            return _error(result, "cannot: as the daemon would say", correlation_id)
        return web.Response(body=msgspec.json.encode(result), content_type="application/json")

    def _daemon_health(self, _params: Any) -> daemon.DaemonHealth:
        bad = any(check.health is not daemon.Health.OK for check in self.checks)
        return daemon.DaemonHealth(health=daemon.Health.DEGRADED if bad else daemon.Health.OK, checks=list(self.checks))

    def _daemon_status(self, _params: Any) -> daemon.DaemonStatus:
        active = [session for session in self.sessions.values() if session.status not in ENDED]
        by_status: dict[str, int] = {}
        for session in self.sessions.values():
            by_status[session.status.value] = by_status.get(session.status.value, 0) + 1
        return daemon.DaemonStatus(
            version="0.0.0",
            instance="fake",
            started_at=datetime.now(UTC),
            health=self._daemon_health(None).health,
            checks=list(self.checks),
            adapters=[daemon.Adapter(port="gpus", adapter="simulated", real=False, reason="a fake")],
            sessions_by_status=by_status,
            gpus_total=self.gpu_count,
            gpus_free=self.gpu_count - len(active),
        )

    def _gpus_list(self, _params: Any) -> gpus.GpuList:
        holders = {session.gpu_id: session.id for session in self.sessions.values() if session.status not in ENDED}
        return msgspec.structs.replace(
            self.gpus,
            gpus=[
                msgspec.structs.replace(gpu, session_id=holders.get(gpu.id, gpu.session_id)) for gpu in self.gpus.gpus
            ],
        )

    def _gpus_enable(self, params: gpus.GpuRef) -> gpus.GpuResult | ErrorCode:
        return self._change_gpu(params.gpu_id, enabled=True)

    def _gpus_disable(self, params: gpus.GpuRef) -> gpus.GpuResult | ErrorCode:
        return self._change_gpu(params.gpu_id, enabled=False)

    def _gpus_recheck(self, params: gpus.GpuRef) -> gpus.GpuResult | ErrorCode:
        return self._change_gpu(params.gpu_id, **self.rechecks.get(params.gpu_id, {}))

    def _change_gpu(self, gpu_id: int, **changes: Any) -> gpus.GpuResult | ErrorCode:
        changed = [
            msgspec.structs.replace(gpu, **changes) if gpu.id == gpu_id else gpu for gpu in self._gpus_list(None).gpus
        ]
        self.gpus = msgspec.structs.replace(self.gpus, gpus=changed)
        found = [gpu for gpu in changed if gpu.id == gpu_id]
        return gpus.GpuResult(gpu=found[0]) if found else ErrorCode.GPU_NOT_FOUND

    def _orphans_list(self, _params: Any) -> orphans.OrphanList:
        return orphans.OrphanList(orphans=list(self.orphans), problems=list(self.problems))

    def _orphans_remove(self, _params: Any) -> orphans.OrphanList:
        tried = [
            msgspec.structs.replace(
                orphan, removed=orphan.name not in self.kept, message=self.kept.get(orphan.name, "")
            )
            for orphan in self.orphans
        ]
        self.orphans = [orphan for orphan in self.orphans if orphan.name in self.kept]
        return orphans.OrphanList(orphans=tried, problems=list(self.problems))

    def _packs_list(self, _params: Any) -> packs.PackList:
        return packs.PackList(packs=[PACK])

    async def _sessions_create(self, params: sessions.CreateSession) -> sessions.SessionResult | ErrorCode:
        active = [session for session in self.sessions.values() if session.status not in ENDED]
        if params.tier is sessions.Tier.PRIVATE:
            return ErrorCode.TIER_UNAVAILABLE
        if params.pack_id not in (None, PACK.id):
            return ErrorCode.PACK_NOT_FOUND
        if sum(session.user_id == params.user_id for session in active) >= params.max_concurrent_sessions:
            return ErrorCode.SESSION_LIMIT_REACHED
        free = set(range(self.gpu_count)) - {session.gpu_id for session in active}
        if not free:
            return ErrorCode.NO_GPU_AVAILABLE
        return sessions.SessionResult(session=await self.put(make_session(params.user_id, gpu_id=min(free))))

    def _sessions_get(self, params: sessions.SessionRef) -> sessions.SessionResult | ErrorCode:
        session = self.sessions.get(params.session_id)
        return sessions.SessionResult(session=session) if session else ErrorCode.SESSION_NOT_FOUND

    def _sessions_list(self, params: sessions.ListSessions) -> sessions.SessionPage:
        before = (params.before_created_at, params.before_id)
        found = [
            session
            for session in sorted(self.sessions.values(), key=lambda one: (one.created_at, one.id), reverse=True)
            if params.user_id in (None, session.user_id)
            and (not params.statuses or session.status in params.statuses)
            and (before == (None, None) or (session.created_at, session.id) < before)
        ]
        return sessions.SessionPage(sessions=found[: params.limit], has_more=len(found) > params.limit)

    async def _sessions_stop(self, params: sessions.SessionRef) -> sessions.StopAccepted | ErrorCode:
        session = self.sessions.get(params.session_id)
        if session is None:
            return ErrorCode.SESSION_NOT_FOUND
        if session.status in ENDED:
            return sessions.StopAccepted(session=session, requested=False)
        if session.status is not SessionStatus.STOPPING:
            session = await self.put(_in_status(session, SessionStatus.STOPPING))
        return sessions.StopAccepted(session=session, requested=True)

    def _sessions_logs(self, params: sessions.SessionLogs) -> sessions.SessionLogsText | ErrorCode:
        if params.session_id not in self.sessions:
            return ErrorCode.SESSION_NOT_FOUND
        return sessions.SessionLogsText(text="a line\n")

    def _sessions_reconcile(self, _params: Any) -> sessions.ReconcileReport:
        active = [session for session in self.sessions.values() if session.status not in ENDED]
        return sessions.ReconcileReport(
            seconds=0.021,
            sessions=len(active),
            actions=list(self.mismatches),
            orphans=len(self.orphans),
            problems=list(self.problems),
        )

    async def _news(self, told: int, generation: int) -> None:
        """Wait for a change or for the next heartbeat."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.heartbeat_seconds), self._changed:
                await self._changed.wait_for(
                    lambda: (self.revision > told and not self.muted) or generation != self._generation
                )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        generation = self._generation
        since, epoch = request.query.get("since"), request.query.get("epoch")
        relist = since is None or epoch != str(self.epoch) or not self._oldest <= int(since) <= self.revision
        async with self._changed:
            told = self.revision
            if relist:
                first = [session for session in self.sessions.values() if session.status not in ENDED]
            else:
                first = [session for session in self._log if session.revision > int(since or 0)]
        self.relists += relist
        self.watchers += 1
        try:
            for session in first:
                await _tell(response, SessionChanged(session=session))
            await _tell(response, Synced(epoch=self.epoch, revision=told, relist=relist))
            while generation == self._generation:
                fresh = [session for session in self._log if session.revision > told and not self.muted]
                for session in fresh:
                    await _tell(response, SessionChanged(session=session))
                    told = session.revision
                if not fresh:
                    await _tell(response, Heartbeat(revision=told, recovery_alive=self.recovery_alive))
                    await self._news(told, generation)
        except ConnectionError:
            pass
        finally:
            self.watchers -= 1
        return response


async def _tell(response: web.StreamResponse, event: WatchEvent) -> None:
    await response.write(msgspec.json.encode(event) + b"\n")


def _in_status(session: Session, status: SessionStatus, **changes: Any) -> Session:
    return msgspec.structs.replace(session, status=status, step=STEPS[status], **changes)


def _error(code: ErrorCode, message: str, correlation_id: str | None) -> web.Response:
    body = ErrorBody(code=code, message=message, correlation_id=correlation_id or str(uuid4()))
    return web.Response(status=HTTP_STATUS[code], body=msgspec.json.encode(body), content_type="application/json")


@contextlib.asynccontextmanager
async def fake_daemon(socket: Path, **options: Any) -> AsyncIterator[FakeDaemon]:
    """A daemon that listens on the socket for as long as the context lasts."""
    made = FakeDaemon(socket, **options)
    await made.come_back()
    try:
        yield made
    finally:
        await made.go_away()


def aged(session: Session, seconds: float) -> Session:
    """The same record, created so much earlier."""
    return msgspec.structs.replace(session, created_at=session.created_at - timedelta(seconds=seconds))
