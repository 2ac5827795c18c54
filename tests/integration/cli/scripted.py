"""The scripted daemon of tests/fakes, in a thread of its own: the program under test is another process, and its tests wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from medforged.contract import daemon, sessions
from medforged.contract.errors import ErrorCode
from medforged.contract.sessions import Session, SessionStatus
from tests.fakes.daemon import ENDED, Call, FakeDaemon, make_session

WAIT_SECONDS = 20.0
BEGINNING = datetime(2026, 2, 17, 4, 58, 24, tzinfo=UTC)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


class ScriptedDaemon(FakeDaemon):
    """Besides what the fake does: `status`, `logs` and `ends` are what the daemon answers."""

    def __init__(self, socket: Path) -> None:
        self._noticed = threading.Condition()
        self._watchers = 0
        super().__init__(socket, calls=_Calls(self._noticed))
        self.status = daemon.DaemonStatus(
            version="0.1.0",
            instance="medforge",
            started_at=BEGINNING,
            health=daemon.Health.OK,
            checks=[daemon.Check(name="containers", health=daemon.Health.OK)],
            adapters=[daemon.Adapter(port="gpus", adapter="nvml", real=True, reason="libnvidia-ml.so.1 answers")],
            sessions_by_status={},
            gpus_total=0,
            gpus_free=0,
        )
        self.logs: dict[UUID, str] = {}
        self.ends: dict[UUID, SessionStatus] = {}
        """What a session becomes as soon as it is asked to stop; one that is not named here stays `stopping`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-daemon")
        self._thread.start()

    def start(self) -> None:
        self._run(self.come_back())

    def stop(self) -> None:
        self._run(self.go_away())

    def close(self) -> None:
        self._run(self._leave_nothing())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self, status: SessionStatus = SessionStatus.RUNNING, **values: Any) -> Session:
        """A session that is newer than all that were added before."""
        number = len(self.sessions)
        created_at = BEGINNING + timedelta(seconds=number)
        defaults = {
            "status": status,
            "gpu_id": number + 1,
            "slug": "".join(_ALPHABET[number // 32**place % 32] for place in reversed(range(8))),
            "created_at": created_at,
            "started_at": created_at,
            "stopped_at": BEGINNING + timedelta(hours=1) if status in ENDED else None,
        }
        return self.change(make_session(**{**defaults, **values}))

    def change(self, session: Session) -> Session:
        """Record a session's new state and tell it to everyone who watches."""
        return self._run(self.put(session))

    def open(self, gate: asyncio.Event) -> None:
        """Let calls that wait at a gate of `hold` go on."""
        self._loop.call_soon_threadsafe(gate.set)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when something that this daemon notices (a call, a watcher) has made the condition true."""
        with self._noticed:
            assert self._noticed.wait_for(condition, WAIT_SECONDS), "the daemon never saw what the test waits for"

    @property
    def watchers(self) -> int:  # type: ignore[override]  # the fake counts in a plain attribute; here a test can wait
        return self._watchers

    @watchers.setter
    def watchers(self, number: int) -> None:
        with self._noticed:
            self._watchers = number
            self._noticed.notify_all()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)

    async def _leave_nothing(self) -> None:
        await self.go_away()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _daemon_status(self, _params: Any) -> daemon.DaemonStatus:
        return self.status

    def _sessions_logs(self, params: sessions.SessionLogs) -> sessions.SessionLogsText | ErrorCode:
        if params.session_id not in self.sessions:
            return ErrorCode.SESSION_NOT_FOUND
        return sessions.SessionLogsText(text=self.logs[params.session_id])

    async def _sessions_stop(self, params: sessions.SessionRef) -> sessions.StopAccepted | ErrorCode:
        answer = await super()._sessions_stop(params)
        if params.session_id in self.ends:
            await self.end(params.session_id, self.ends[params.session_id])
        return answer


class _Calls(list[Call]):
    def __init__(self, noticed: threading.Condition) -> None:
        super().__init__()
        self._noticed = noticed

    def append(self, call: Call) -> None:
        with self._noticed:
            super().append(call)
            self._noticed.notify_all()
