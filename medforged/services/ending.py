"""Owns ending sessions: a requested stop, and the death of a container. Both can be repeated from any point."""

from __future__ import annotations

from uuid import UUID

from medforged.domain.errors import ContainerError, StateConflict, WorkspaceError
from medforged.domain.sessions import Session, SessionStatus, StopReason
from medforged.domain.workspaces import SnapshotKind, snapshot_name
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.ports.state import SessionChange
from medforged.ports.workspaces import WorkspaceStore
from medforged.services.journal import Journal
from medforged.services.locks import SessionLocks
from medforged.services.records import Records
from medforged.services.tasks import BackgroundTasks

__all__ = ["SessionEnding"]


class SessionEnding:
    """Stop requests are recorded at once and carried out in the background."""

    def __init__(
        self,
        *,
        records: Records,
        workspaces: WorkspaceStore,
        containers: ContainerRuntime,
        locks: SessionLocks,
        clock: Clock,
        journal: Journal,
        tasks: BackgroundTasks,
        stop_grace_seconds: float,
    ) -> None:
        self._records = records
        self._workspaces = workspaces
        self._containers = containers
        self._locks = locks
        self._clock = clock
        self._journal = journal
        self._tasks = tasks
        self._stop_grace_seconds = stop_grace_seconds

    async def request_stop(self, session_id: UUID) -> tuple[Session, bool]:
        """Record the wish and begin. True unless the session had already ended. Raises SessionNotFound."""
        session = await self._records.get(session_id)
        if session.status in (SessionStatus.STARTING, SessionStatus.RUNNING):
            try:
                session = await self._records.change(
                    session_id,
                    {SessionStatus.STARTING, SessionStatus.RUNNING},
                    SessionChange(status=SessionStatus.STOPPING),
                )
            except StateConflict:
                # Somebody else was quicker; what they made of it is the answer.
                session = await self._records.get(session_id)
            else:
                self._tasks.start(self.finish_stop(session_id), f"stop {session.slug}")
        return session, session.active

    async def finish_stop(self, session_id: UUID) -> bool:
        """Carry a recorded stop out: container stopped, snapshot taken, container removed, `stopped`.

        True when the session has ended. A container that cannot be stopped leaves it `stopping`, to be tried again.
        """
        async with self._locks.hold(session_id):
            session = await self._records.get(session_id)
            if session.status is not SessionStatus.STOPPING:
                return not session.active
            try:
                await self._containers.stop(session.container_name, self._stop_grace_seconds)
                snapshot_error = await self._snapshot(session, SnapshotKind.STOP)
                await self._containers.remove(session.container_name)
            except ContainerError as error:
                self._journal.failed(session, error=str(error), reason="stop_failed")
                return False
            if snapshot_error is not None:
                message, reason = f"snapshot failed: {snapshot_error}", StopReason.SNAPSHOT_FAILED
            elif session.error_message is not None:
                # A create that failed and could not be undone at once ends here.
                message, reason = session.error_message, StopReason.CREATE_FAILED
            else:
                message, reason = None, StopReason.REQUESTED
            status = SessionStatus.STOPPED if message is None else SessionStatus.ERROR
            await self._end(session, status, message, reason)
            return True

    async def bury(self, session_id: UUID, message: str) -> bool:
        """Handle the death of a session's container: snapshot, remove what is left of it, `error`.

        True when the session has ended by this. Raises ContainerError when the container cannot be removed.
        """
        async with self._locks.hold(session_id):
            session = await self._records.get(session_id)
            if session.status not in (SessionStatus.STARTING, SessionStatus.RUNNING):
                return False
            snapshot_error = await self._snapshot(session, SnapshotKind.DEATH)
            if snapshot_error is not None:
                message = f"{message}; snapshot failed: {snapshot_error}"
            await self._containers.remove(session.container_name)
            await self._end(session, SessionStatus.ERROR, message, StopReason.CONTAINER_DEATH)
            return True

    async def _snapshot(self, session: Session, kind: SnapshotKind) -> str | None:
        """Take the final snapshot under the name that the record fixes; return what went wrong."""
        try:
            if not await self._workspaces.exists(session.workspace_key):
                # A session that was stopped before its workspace was made has nothing to keep.
                return None if session.started_at is None else "the workspace is missing"
            snapshot_at = session.snapshot_at
            if snapshot_at is None:
                snapshot_at = self._clock.now()
                await self._records.change(session.id, {session.status}, SessionChange(snapshot_at=snapshot_at))
            await self._workspaces.snapshot(session.workspace_key, snapshot_name(kind, snapshot_at))
        except WorkspaceError as error:
            return str(error)
        return None

    async def _end(self, session: Session, status: SessionStatus, message: str | None, reason: StopReason) -> None:
        change = SessionChange(status=status, stopped_at=self._clock.now(), error_message=message)
        ended = await self._records.change(session.id, {session.status}, change)
        self._journal.stopped(ended, reason=reason.value, error=message)
