"""A scripted daemon on a real Unix socket that speaks the contract, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from aiohttp import web

from medforged.contract.daemon import Adapter, Check, DaemonStatus, Health
from medforged.contract.errors import HTTP_STATUS, ErrorBody, ErrorCode
from medforged.contract.gpus import GpuList
from medforged.contract.methods import METHODS_BY_NAME, WATCH_PATH
from medforged.contract.sessions import (
    ListSessions,
    Session,
    SessionLogs,
    SessionLogsText,
    SessionPage,
    SessionRef,
    SessionResult,
    SessionStatus,
    StopAccepted,
    Tier,
)
from medforged.contract.watch import Heartbeat, SessionChanged, Synced, WatchEvent

WAIT_SECONDS = 20.0
ACTIVE = {SessionStatus.STARTING, SessionStatus.RUNNING, SessionStatus.STOPPING}
BEGINNING = datetime(2026, 2, 17, 4, 58, 24, tzinfo=UTC)


class Refusal(Exception):
    """What a scripted method answers instead of a result."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.body = ErrorBody(code=code, message=message, correlation_id="c0ffee00c0ffee00")


class ScriptedDaemon:
    """Sessions, GPUs and refusals that a test sets; every answer and event is encoded from the contract's types."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.epoch = uuid4()
        self.revision = 0
        self.sessions: dict[UUID, Session] = {}
        self.gpus = GpuList(gpus=[], faults=[])
        self.status = DaemonStatus(
            version="0.1.0",
            instance="medforge",
            started_at=BEGINNING,
            health=Health.OK,
            checks=[Check(name="containers", health=Health.OK)],
            adapters=[Adapter(port="gpus", adapter="nvml", real=True, reason="libnvidia-ml.so.1 answers")],
            sessions_by_status={},
            gpus_total=0,
            gpus_free=0,
        )
        self.logs: dict[UUID, str] = {}
        self.refusals: dict[str, Refusal] = {}
        self.ends: dict[UUID, SessionStatus] = {}
        """What a session becomes as soon as it is asked to stop; one that is not named here stays `stopping`."""
        self.calls: list[tuple[str, Any]] = []
        self.silent = False
        self._changed = threading.Condition()
        self._watchers: set[asyncio.Queue[WatchEvent]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-daemon")
        self._runner: web.AppRunner | None = None
        self._thread.start()

    def start(self) -> None:
        self._on_loop(self._listen())

    def stop(self) -> None:
        self._on_loop(self._end())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self, status: SessionStatus = SessionStatus.RUNNING, *, slug: str | None = None, **fields: Any) -> Session:
        """A session like the daemon's own, newer than all that were added before."""
        number = len(self.sessions)
        session_id, user_id = uuid4(), fields.pop("user_id", uuid4())
        session = Session(
            **{
                "id": session_id,
                "user_id": user_id,
                "tier": Tier.PUBLIC,
                "pack_id": UUID("00000000-0000-0000-0000-000000000100"),
                "status": status,
                "container_id": "c" * 64,
                "gpu_id": number + 1,
                "gpu_uuid": f"GPU-{session_id}",
                "slug": slug or _slug(number),
                "workspace_zfs": f"tank/medforge/workspaces/{user_id}/{session_id}",
                "created_at": BEGINNING + timedelta(seconds=number),
                "started_at": BEGINNING + timedelta(seconds=number + 3),
                "stopped_at": None if status in ACTIVE else BEGINNING + timedelta(hours=1),
                "error_message": None,
                "revision": 0,
                **fields,
            }
        )
        self.change(session)
        return self.sessions[session.id]

    def change(self, session: Session) -> None:
        """Record a session's new state and tell it to everyone who watches."""
        with self._changed:
            self.revision += 1
            recorded = msgspec.structs.replace(session, revision=self.revision)
            self.sessions[session.id] = recorded
            for queue in self._watchers:
                self._loop.call_soon_threadsafe(queue.put_nowait, SessionChanged(session=recorded))
            self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when something that this daemon knows has become true."""
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_SECONDS), "the daemon never saw what the test waits for"

    def called(self, name: str) -> list[Any]:
        """The parameters of every call of a method so far."""
        return [params for called, params in self.calls if called == name]

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    def _on_loop(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)

    async def _listen(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/{method}", self._call)
        app.router.add_get(WATCH_PATH, self._watch)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def _end(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self.socket.unlink(missing_ok=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _call(self, request: web.Request) -> web.Response:
        name = request.match_info["method"]
        params = msgspec.json.decode(await request.read(), type=METHODS_BY_NAME[name].params)
        with self._changed:
            self.calls.append((name, params))
            self._changed.notify_all()
        if self.silent:
            await asyncio.Event().wait()
        try:
            if name in self.refusals:
                raise self.refusals[name]
            answer: msgspec.Struct = _ANSWERS[name](self, params)
        except Refusal as refusal:
            body = msgspec.json.encode(refusal.body)
            return web.Response(status=HTTP_STATUS[refusal.body.code], body=body, content_type="application/json")
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[WatchEvent] = asyncio.Queue()
        resumed = request.query.get("epoch") == str(self.epoch)
        with self._changed:
            if resumed:
                first = [s for s in self.sessions.values() if s.revision > int(request.query["since"])]
            else:
                first = [s for s in self.sessions.values() if s.status in ACTIVE]
            synced = Synced(epoch=self.epoch, revision=self.revision, relist=not resumed)
            self._watchers.add(queue)
            self._changed.notify_all()
        try:
            for event in [*(SessionChanged(session=session) for session in first), synced]:
                await response.write(msgspec.json.encode(event) + b"\n")
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), 0.5)
                except TimeoutError:
                    event = Heartbeat(revision=self.revision, recovery_alive=True)
                await response.write(msgspec.json.encode(event) + b"\n")
        except ConnectionError:
            return response
        finally:
            with self._changed:
                self._watchers.discard(queue)
                self._changed.notify_all()

    def _list(self, params: ListSessions) -> SessionPage:
        before = (params.before_created_at, params.before_id) if params.before_created_at else None
        found = [
            session
            for session in sorted(self.sessions.values(), key=lambda s: (s.created_at, s.id), reverse=True)
            if params.user_id in (None, session.user_id)
            and (not params.statuses or session.status in params.statuses)
            and (before is None or (session.created_at, session.id) < before)
        ]
        return SessionPage(sessions=found[: params.limit], has_more=len(found) > params.limit)

    def _get(self, params: SessionRef) -> SessionResult:
        if params.session_id not in self.sessions:
            raise Refusal(
                ErrorCode.SESSION_NOT_FOUND, f"cannot find session {params.session_id}: no session has this id"
            )
        return SessionResult(session=self.sessions[params.session_id])

    def _stop(self, params: SessionRef) -> StopAccepted:
        session = self._get(params).session
        if session.status not in ACTIVE:
            return StopAccepted(session=session, requested=False)
        self.change(msgspec.structs.replace(session, status=SessionStatus.STOPPING))
        accepted = self.sessions[session.id]
        if session.id in self.ends:
            self.change(msgspec.structs.replace(accepted, status=self.ends[session.id], stopped_at=BEGINNING))
        return StopAccepted(session=accepted, requested=True)

    def _logs(self, params: SessionLogs) -> SessionLogsText:
        self._get(SessionRef(session_id=params.session_id))
        return SessionLogsText(text=self.logs[params.session_id])


_ANSWERS: Mapping[str, Callable[[ScriptedDaemon, Any], Any]] = {
    "daemon.status": lambda daemon, _: daemon.status,
    "gpus.list": lambda daemon, _: daemon.gpus,
    "sessions.list": ScriptedDaemon._list,
    "sessions.get": ScriptedDaemon._get,
    "sessions.stop": ScriptedDaemon._stop,
    "sessions.logs": ScriptedDaemon._logs,
}


def _slug(number: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    return "".join(alphabet[number // 32**place % 32] for place in reversed(range(8)))
