"""Owns ending sessions, whatever the reason: one flow that can be taken up again at any of its recorded steps."""

from __future__ import annotations

import asyncio
from uuid import UUID

from medforged.domain.errors import ContainerError, MedForgeError, StateConflict, WorkspaceError
from medforged.domain.sessions import Session, SessionStatus, SessionStep, StopReason
from medforged.domain.workspaces import SnapshotKind, snapshot_name
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.ports.state import SessionChange
from medforged.ports.workspaces import WorkspaceStore
from medforged.services.bounded import bounded
from medforged.services.journal import Journal
from medforged.services.locks import SessionLocks
from medforged.services.records import Records
from medforged.services.release import GpuRelease
from medforged.services.tasks import BackgroundTasks

__all__ = ["SessionEnding"]

# A stop that failed is tried again after this long, doubling up to the longest.
_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 15.0
# Once these are recorded, the container has been stopped and the snapshot decided.
_SNAPSHOT_DECIDED = frozenset({SessionStep.REMOVE, SessionStep.RELEASE})


class SessionEnding:
    """An end is recorded first, with its reason, and then carried out in the background under the session's lock.

    `step_seconds` bounds each call to the host. After `deadline_seconds` of trying, a session whose container cannot
    be ended is ended without it: its GPU goes into quarantine, and recovery goes on removing what is left.
    """

    def __init__(
        self,
        *,
        records: Records,
        workspaces: WorkspaceStore,
        containers: ContainerRuntime,
        release: GpuRelease,
        locks: SessionLocks,
        clock: Clock,
        journal: Journal,
        tasks: BackgroundTasks,
        stop_grace_seconds: float,
        step_seconds: float,
        deadline_seconds: float,
    ) -> None:
        self._records = records
        self._workspaces = workspaces
        self._containers = containers
        self._release = release
        self._locks = locks
        self._clock = clock
        self._journal = journal
        self._tasks = tasks
        self._stop_grace_seconds = stop_grace_seconds
        self._step_seconds = step_seconds
        self._deadline_seconds = deadline_seconds
        self._under_way: dict[UUID, asyncio.Task[object]] = {}

    async def request_stop(self, session_id: UUID) -> tuple[Session, bool]:
        """Record the wish and begin. True unless the session had already ended. Raises SessionNotFound."""
        session = await self._records.get(session_id)
        if session.status in (SessionStatus.STARTING, SessionStatus.RUNNING):
            session = await self.decide(session, StopReason.REQUESTED)
        elif session.status is SessionStatus.STOPPING:
            self.begin(session)
        return session, session.active

    async def decide(self, session: Session, reason: StopReason, message: str | None = None) -> Session:
        """Record that a session ends, unless it already does, and begin; returns the record as it is then."""
        change = SessionChange(
            status=SessionStatus.STOPPING, step=SessionStep.STOP, ending=reason, error_message=message
        )
        try:
            session = await self._records.change(session.id, {SessionStatus.STARTING, SessionStatus.RUNNING}, change)
        except StateConflict:
            # Somebody else was quicker; what they made of it is the answer.
            session = await self._records.get(session.id)
        if session.active:
            self.begin(session)
        return session

    def begin(self, session: Session) -> asyncio.Task[object]:
        """Carry a recorded end out in the background, once at a time; the task ends when the session has."""
        task = self._under_way.get(session.id)
        if task is None:
            task = self._tasks.start(self._until_ended(session.id), f"end {session.slug}")
            self._under_way[session.id] = task
            task.add_done_callback(lambda _: self._under_way.pop(session.id, None))
        return task

    async def _until_ended(self, session_id: UUID) -> None:
        overdue_at = self._clock.monotonic() + self._deadline_seconds
        pause = _FIRST_RETRY_SECONDS
        while not await self._attempt(session_id, overdue_at):
            if not await self._tasks.pause(min(pause, max(0.0, overdue_at - self._clock.monotonic()))):
                return
            pause = min(pause * 2, _LONGEST_RETRY_SECONDS)

    async def _attempt(self, session_id: UUID, overdue_at: float) -> bool:
        async with self._locks.hold(session_id):
            session = await self._records.get(session_id)
            if session.status is not SessionStatus.STOPPING:
                return True
            overdue = self._clock.monotonic() >= overdue_at
            try:
                await self._carry_out(session, overdue=overdue)
            except MedForgeError as error:
                self._journal.failed(session, error=str(error), reason=StopReason.STOP_FAILED.value)
                return False
            return True

    async def _carry_out(self, session: Session, *, overdue: bool) -> None:
        """Everything from the recorded step on. Raises ContainerError while there is time to try again."""
        stuck = None
        try:
            if session.step not in _SNAPSHOT_DECIDED:
                await self._stop(session)
        except ContainerError as error:
            if not overdue:
                raise
            stuck = str(error)
        if session.step not in _SNAPSHOT_DECIDED:
            session = await self._preserve(session)
        try:
            await bounded(
                self._containers.remove(session.container_name), self._step_seconds, ContainerError,
                f"cannot remove container {session.container_name}",
            )  # fmt: skip
        except ContainerError as error:
            if not overdue:
                raise
            stuck = str(error)
        if stuck is not None:
            await self._give_up(session, stuck)
            return
        session = await self._records.step(session, SessionStep.RELEASE)
        if session.ending is StopReason.CREATE_FAILED:
            session = await self._discard(session)
        await self.conclude(session)

    async def _stop(self, session: Session) -> None:
        # What never became ready has nothing to save before it ends.
        grace = 0 if session.ending is StopReason.CREATE_FAILED else self._stop_grace_seconds
        await bounded(
            self._containers.stop(session.container_name, grace), self._step_seconds + grace, ContainerError,
            f"cannot stop container {session.container_name}",
        )  # fmt: skip

    async def _preserve(self, session: Session) -> Session:
        """Take the final snapshot under the name that the record fixes, and record that this is decided."""
        problem = None
        if session.ending is not StopReason.CREATE_FAILED:
            kind = SnapshotKind.DEATH if session.ending is StopReason.CONTAINER_DEATH else SnapshotKind.STOP
            try:
                session = await self._snapshot(session, kind)
            except WorkspaceError as error:
                problem = f"snapshot failed: {error}"
        change = SessionChange(step=SessionStep.REMOVE)
        if problem is not None and session.ending is StopReason.REQUESTED:
            change = SessionChange(step=SessionStep.REMOVE, ending=StopReason.SNAPSHOT_FAILED, error_message=problem)
        elif problem is not None:
            message = f"{session.error_message}; {problem}" if session.error_message else problem
            change = SessionChange(step=SessionStep.REMOVE, error_message=message)
        return await self._records.change(session.id, {SessionStatus.STOPPING}, change)

    async def _snapshot(self, session: Session, kind: SnapshotKind) -> Session:
        dataset = session.workspace_zfs
        exists = bounded(
            self._workspaces.exists(session.workspace_key), self._step_seconds, WorkspaceError,
            f"cannot look for workspace {dataset}",
        )  # fmt: skip
        if not await exists:
            # A session that was stopped before its workspace was made has nothing to keep.
            if session.started_at is None:
                return session
            raise WorkspaceError("the workspace is missing")
        # The name is fixed before the effect: taking it again after a crash finds what is there.
        snapshot_at = session.snapshot_at or self._clock.now()
        session = await self._records.change(
            session.id, {session.status}, SessionChange(step=SessionStep.SNAPSHOT, snapshot_at=snapshot_at)
        )
        name = snapshot_name(kind, snapshot_at)
        await bounded(
            self._workspaces.snapshot(session.workspace_key, name), self._step_seconds, WorkspaceError,
            f"cannot take snapshot {dataset}@{name}",
        )  # fmt: skip
        return session

    async def _discard(self, session: Session) -> Session:
        """Take away the workspace of a session that never was ready; one that cannot go is kept, and told."""
        try:
            await bounded(
                self._workspaces.discard(session.workspace_key), self._step_seconds, WorkspaceError,
                f"cannot discard workspace {session.workspace_zfs}",
            )  # fmt: skip
        except WorkspaceError as error:
            message = f"{session.error_message}; {error}"
            return await self._records.change(session.id, {session.status}, SessionChange(error_message=message))
        return session

    async def conclude(self, session: Session) -> Session:
        """End a session of which nothing is left but the GPU: free when that is proven, in quarantine otherwise."""
        return await self._end(session, await self._release.doubt(session))

    async def _give_up(self, session: Session, stuck: str) -> None:
        message = f"stop failed: {stuck}"
        if session.error_message:
            message = f"{session.error_message}; {message}"
        change = SessionChange(ending=StopReason.STOP_FAILED, error_message=message)
        session = await self._records.change(session.id, {session.status}, change)
        await self._end(session, f"container {session.container_name} may still use it: {stuck}")

    async def _end(self, session: Session, doubt: str | None) -> Session:
        ending = session.ending or StopReason.REQUESTED
        status = SessionStatus.STOPPED if ending is StopReason.REQUESTED else SessionStatus.ERROR
        change = SessionChange(status=status, step=SessionStep.DONE, stopped_at=self._clock.now(), gpu_quarantine=doubt)
        ended = await self._records.change(session.id, {session.status}, change)
        self._journal.stopped(ended, reason=ending.value, error=ended.error_message)
        if doubt is not None:
            self._journal.gpu_quarantined(ended, doubt)
        return ended
