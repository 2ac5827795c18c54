"""Owns starting a session: allocation, then workspace, container, isolation and readiness, each with its undo."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from medforged.domain.containers import IDE_PORT, ContainerInfo, ContainerState
from medforged.domain.errors import (
    ContainerError,
    CreateFailed,
    HostError,
    IsolationError,
    NotReady,
    StateConflict,
    StateError,
    StoppedWhileStarting,
    TierUnavailable,
)
from medforged.domain.packs import Pack
from medforged.domain.sessions import Session, SessionStatus, SessionStep, StopReason, Tier
from medforged.domain.workspaces import WorkspaceKey
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.ports.readiness import ReadinessProbe
from medforged.ports.state import Allocation, SessionChange
from medforged.ports.workspaces import WorkspaceStore
from medforged.services.bounded import bounded
from medforged.services.ending import SessionEnding
from medforged.services.isolation import IsolationGuard
from medforged.services.journal import Journal
from medforged.services.locks import SessionLocks
from medforged.services.plan import SessionPlan
from medforged.services.records import Records
from medforged.services.undo import UndoStack

__all__ = ["SessionCreation"]

# How soon a container that ends before its IDE answers, or a stop request, is noticed while waiting.
_WAITING_LOOK_SECONDS = 0.25


class SessionCreation:
    """Create sessions. Whatever interrupts a create, its record tells reconciliation what may exist.

    `deadline_seconds` bounds everything between allocation and readiness, `step_seconds` each undo.
    """

    def __init__(
        self,
        *,
        records: Records,
        workspaces: WorkspaceStore,
        containers: ContainerRuntime,
        readiness: ReadinessProbe,
        isolation: IsolationGuard,
        ending: SessionEnding,
        plan: SessionPlan,
        locks: SessionLocks,
        clock: Clock,
        journal: Journal,
        deadline_seconds: float,
        step_seconds: float,
    ) -> None:
        self._records = records
        self._workspaces = workspaces
        self._containers = containers
        self._readiness = readiness
        self._isolation = isolation
        self._ending = ending
        self._plan = plan
        self._locks = locks
        self._clock = clock
        self._journal = journal
        self._deadline_seconds = deadline_seconds
        self._step_seconds = step_seconds

    async def create(self, *, user_id: UUID, tier: Tier, pack_id: UUID | None, max_concurrent_sessions: int) -> Session:
        """A session that is `running`: its IDE answers.

        Raises TierUnavailable, PackNotFound, SessionLimitReached, NoGpuAvailable or IsolationError before anything
        was made; StoppedWhileStarting when it was stopped meanwhile; CreateFailed when a part of the host failed.
        """
        if tier is Tier.PRIVATE:
            raise TierUnavailable("the private tier is not enabled on this host")
        pack = self._plan.pack(pack_id)
        if self._isolation.problem is not None:
            raise IsolationError(
                f"cannot start a session: isolation is not established ({self._isolation.problem}); "
                "`medforgectl status` tells more"
            )
        session_id = uuid4()
        allocation = Allocation(
            session_id=session_id,
            user_id=user_id,
            tier=tier,
            pack_id=pack.id,
            max_concurrent_sessions=max_concurrent_sessions,
            workspace_zfs=self._workspaces.locate(WorkspaceKey(user_id, session_id)).dataset,
            created_at=self._clock.now(),
        )
        async with self._locks.hold(allocation.session_id):
            session = await self._records.allocate(allocation)
            return await self._provision(session, pack)

    async def _provision(self, session: Session, pack: Pack) -> Session:
        undo = UndoStack(self._step_seconds)
        try:
            info = await bounded(
                self._start(session, pack, undo), self._deadline_seconds, NotReady, "cannot get it ready"
            )
            # Not within the limit: a change that is cut off may have been made all the same.
            change = SessionChange(
                status=SessionStatus.RUNNING,
                step=SessionStep.SERVE,
                container_id=info.id,
                started_at=self._clock.now(),
            )
            running = await self._records.change(session.id, {SessionStatus.STARTING}, change)
        except StateConflict as error:
            # The end of this session has been recorded, and whoever carries it out is waiting for its lock.
            undo.commit()
            raise StoppedWhileStarting("the session was stopped while it was starting") from error
        except HostError as error:
            await self._fail(session, str(error), undo)
            raise CreateFailed(f"cannot start the session: {error}") from error
        except Exception as error:  # a defect must not leave a session in limbo either
            await self._fail(session, f"internal error ({type(error).__name__})", undo)
            raise
        undo.commit()
        self._journal.started(running, container_id=running.container_id)
        return running

    async def _start(self, session: Session, pack: Pack, undo: UndoStack) -> ContainerInfo:
        image = await self._containers.resolve_image(pack.image)
        undo.push("discard the workspace", lambda: self._workspaces.discard(session.workspace_key))
        workspace = await self._workspaces.create(session.workspace_key, self._plan.quota_bytes)
        await self._records.step(session, SessionStep.CONTAINER)
        undo.push("remove the container", lambda: self._containers.remove(session.container_name))
        container_id = await self._containers.create(self._plan.container(session, image, workspace))
        change = SessionChange(step=SessionStep.START, container_id=container_id)
        await self._records.change(session.id, {SessionStatus.STARTING}, change)
        with self._isolation.admitting():
            info = await self._containers.start(session.container_name)
            # The packet filter covers the whole bridge already; the port's own flag is set while the IDE boots.
            await self._isolation.cover()
        await self._wait_ready(session, info)
        return info

    async def _wait_ready(self, session: Session, info: ContainerInfo) -> None:
        if info.address is None:
            raise ContainerError(f"cannot reach container {info.name}: it has no address on {self._plan.network}")
        probe = asyncio.ensure_future(self._readiness.wait(info.address, IDE_PORT, self._plan.start_timeout_seconds))
        try:
            while not (await asyncio.wait({probe}, timeout=_WAITING_LOOK_SECONDS))[0]:
                if (await self._records.get(session.id)).status is not SessionStatus.STARTING:
                    raise StateConflict(f"session {session.id} is being stopped")
                seen = await self._containers.inspect(session.container_name)
                if seen.state in (ContainerState.EXITED, ContainerState.MISSING):
                    reason = "ran out of memory" if seen.oom_killed else f"ended with status {seen.exit_code}"
                    raise ContainerError(f"container {seen.name} {reason} before its IDE answered")
            await probe
        finally:
            probe.cancel()

    async def _fail(self, session: Session, reason: str, undo: UndoStack) -> None:
        """Record the failure, take back what was made, and end the session; the ending flow does what is left."""
        change = SessionChange(
            status=SessionStatus.STOPPING,
            step=SessionStep.REMOVE,
            ending=StopReason.CREATE_FAILED,
            error_message=f"create failed: {reason}",
        )
        try:
            session = await self._records.change(session.id, {SessionStatus.STARTING}, change)
        except StateConflict:
            undo.commit()
            return
        except StateError as error:
            # What cannot be recorded is taken back all the same: recovery finds a session whose container is missing.
            failures = await undo.unwind()
            self._journal.create_failed(session, error=f"{reason}; {error}", undo_failures=failures)
            return
        failures = await undo.unwind()
        self._journal.create_failed(session, error=reason, undo_failures=failures)
        try:
            if not failures:
                await self._ending.conclude(session)
                return
        except StateError as error:
            self._journal.failed(session, error=str(error))
        # Something may still exist, and a container may still hold the GPU.
        self._ending.begin(session)
