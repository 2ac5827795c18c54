"""Owns moving one session on to where its container says that it has to be."""

from __future__ import annotations

import asyncio
from uuid import UUID

from medforged.domain.containers import IDE_PORT, ContainerInfo, ContainerState
from medforged.domain.errors import (
    ContainerError,
    IsolationError,
    MedForgeError,
    NotReady,
    SessionNotFound,
    StateConflict,
)
from medforged.domain.sessions import Session, SessionStatus, SessionStep, StopReason
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.ports.readiness import ReadinessProbe
from medforged.ports.state import SessionChange
from medforged.services.bounded import bounded
from medforged.services.ending import SessionEnding
from medforged.services.isolation import IsolationGuard
from medforged.services.journal import Journal, RecoveryMode
from medforged.services.locks import SessionLocks
from medforged.services.records import Records
from medforged.services.report import Action, Outcome
from medforged.services.tasks import BackgroundTasks

__all__ = ["SessionSettling"]

# contract.md section 3: "state unknown -> 3 retries 0.25 s apart, then error".
_UNKNOWN_RETRIES = 3
_UNKNOWN_RETRY_SECONDS = 0.25


class SessionSettling:
    """Each session is looked at in a task of its own, so that a stuck call of one holds up no other."""

    def __init__(
        self,
        *,
        records: Records,
        containers: ContainerRuntime,
        readiness: ReadinessProbe,
        isolation: IsolationGuard,
        ending: SessionEnding,
        locks: SessionLocks,
        clock: Clock,
        journal: Journal,
        tasks: BackgroundTasks,
        start_timeout_seconds: float,
        starting_deadline_seconds: float,
        step_seconds: float,
    ) -> None:
        self._records = records
        self._containers = containers
        self._readiness = readiness
        self._isolation = isolation
        self._ending = ending
        self._locks = locks
        self._clock = clock
        self._journal = journal
        self._tasks = tasks
        self._start_timeout_seconds = start_timeout_seconds
        self._starting_deadline_seconds = starting_deadline_seconds
        self._step_seconds = step_seconds
        self._under_way: dict[UUID, asyncio.Task[object]] = {}
        self._again: set[UUID] = set()
        # When this process first met a session that is `starting` and that none of its own creates works on.
        self._met: dict[UUID, float] = {}

    def begin(self, session: Session, mode: RecoveryMode) -> asyncio.Task[object]:
        """Look at a session in the background, once at a time. The task's result is an Action, or None.

        A look that is under way may have begun before what the caller knows of: then it is followed by another.
        """
        task = self._under_way.get(session.id)
        if task is None:
            task = self._tasks.start(self._repeatedly(session.id, mode), f"settle {session.slug}")
            self._under_way[session.id] = task
            task.add_done_callback(lambda _: self._under_way.pop(session.id, None))
        else:
            self._again.add(session.id)
        return task

    async def _repeatedly(self, session_id: UUID, mode: RecoveryMode) -> Action | None:
        while True:
            self._again.discard(session_id)
            action = await self.settle(session_id, mode)
            if session_id not in self._again:
                return action

    async def settle(self, session_id: UUID, mode: RecoveryMode) -> Action | None:
        """Move a session on; None when it already was where it belongs. Raises MedForgeError; it is tried again."""
        try:
            return await self._settle(session_id, mode)
        except SessionNotFound:
            return None
        except MedForgeError as error:
            self._journal.failed(None, error=str(error), session_id=str(session_id), recovery_mode=mode.value)
            raise

    async def _settle(self, session_id: UUID, mode: RecoveryMode) -> Action | None:
        session = await self._records.get(session_id)
        if session.status is not SessionStatus.STOPPING:
            # A create of this process may still be at work on it.
            async with self._locks.hold(session_id):
                session = await self._records.get(session_id)
                if session.status in (SessionStatus.STARTING, SessionStatus.RUNNING):
                    seen = await self._inspect(session)
                    verdict = await self._judge(session, seen, mode)
                    if isinstance(verdict, Action | None):
                        return verdict
                    session, found = verdict, seen.state.value
                else:
                    found = session.status.value
        else:
            self._journal.decided(session, state=session.status.value, recovery_mode=mode)
            found = session.status.value
        if not session.active:
            return None
        self._met.pop(session_id, None)
        await asyncio.shield(self._ending.begin(session))
        ended = await self._records.get(session_id)
        # The daemon may be ending, and leave this to its successor.
        outcome = Outcome.PENDING if ended.active else Outcome.ENDED
        return Action(ended.container_name, ended, found, outcome, ended.error_message or "")

    async def _judge(self, session: Session, seen: ContainerInfo, mode: RecoveryMode) -> Session | Action | None:
        """The session as it has to be ended; else what was done about it, if anything."""
        if seen.state is ContainerState.RUNNING:
            if session.status is SessionStatus.RUNNING and session.container_id == seen.id and session.started_at:
                return None
            self._decided(session, seen, mode)
            return await self._adopt(session, seen)
        self._decided(session, seen, mode)
        if seen.state is ContainerState.CREATED and session.status is SessionStatus.STARTING:
            message = "create failed: the daemon was interrupted before the container was started"
            return await self._ending.decide(session, StopReason.CREATE_FAILED, message)
        return await self._ending.decide(session, StopReason.CONTAINER_DEATH, _death(seen))

    async def _inspect(self, session: Session) -> ContainerInfo:
        name = session.container_name
        retries = 0
        while True:
            seen = await bounded(
                self._containers.inspect(name), self._step_seconds, ContainerError, f"cannot inspect container {name}"
            )
            if seen.state is not ContainerState.UNKNOWN or retries == _UNKNOWN_RETRIES:
                return seen
            retries += 1
            await self._clock.sleep(_UNKNOWN_RETRY_SECONDS)

    async def _adopt(self, session: Session, seen: ContainerInfo) -> Session | Action | None:
        """Record as running what runs. Raises IsolationError while it is not isolated and there is time to wait."""
        if session.status is SessionStatus.STARTING:
            # The daemon was interrupted between start and readiness; `running` still has to mean both.
            try:
                await self._make_sure(session, seen)
            except NotReady as error:
                return await self._ending.decide(session, StopReason.CREATE_FAILED, f"create failed: {error}")
        change = SessionChange(
            status=SessionStatus.RUNNING,
            step=SessionStep.SERVE,
            container_id=seen.id,
            started_at=session.started_at or self._clock.now(),
        )
        try:
            session = await self._records.change(session.id, {session.status}, change)
        except StateConflict:
            # A stop request came between; its own flow follows.
            return None
        self._met.pop(session.id, None)
        return Action(session.container_name, session, seen.state.value, Outcome.RUNNING)

    async def _make_sure(self, session: Session, seen: ContainerInfo) -> None:
        met = self._met.setdefault(session.id, self._clock.monotonic())
        try:
            await self._isolation.cover()
        except IsolationError as error:
            if self._clock.monotonic() - met < self._starting_deadline_seconds:
                raise
            raise NotReady(str(error)) from error
        if seen.address is None:
            raise NotReady(f"cannot reach container {seen.name}: it has no address on the sessions' network")
        await self._readiness.wait(seen.address, IDE_PORT, self._start_timeout_seconds)

    def _decided(self, session: Session, seen: ContainerInfo, mode: RecoveryMode) -> None:
        self._journal.decided(session, state=seen.state.value, recovery_mode=mode, container_id=seen.id)


def _death(seen: ContainerInfo) -> str:
    match seen.state:
        case ContainerState.MISSING:
            return "container missing"
        case ContainerState.UNKNOWN:
            return "container state unknown"
        case _:
            ran_out = ": it ran out of memory" if seen.oom_killed else ""
            return f"container exited unexpectedly{ran_out}"
