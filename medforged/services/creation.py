"""Owns starting a session: allocation, then workspace, container, isolation and readiness, each with its undo."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import UUID, uuid4

from medforged.domain.containers import IDE_PORT, ContainerInfo, ContainerState
from medforged.domain.errors import (
    ContainerError,
    CreateFailed,
    HostError,
    IsolationError,
    StateConflict,
    StoppedWhileStarting,
    TierUnavailable,
)
from medforged.domain.packs import Pack
from medforged.domain.sessions import Session, SessionStatus, StopReason, Tier
from medforged.domain.workspaces import WorkspaceKey
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.ports.readiness import ReadinessProbe
from medforged.ports.state import Allocation, SessionChange
from medforged.ports.workspaces import WorkspaceStore
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
    """Create sessions. Whatever interrupts a create, its record tells reconciliation what may exist."""

    def __init__(
        self,
        *,
        records: Records,
        workspaces: WorkspaceStore,
        containers: ContainerRuntime,
        readiness: ReadinessProbe,
        isolation: IsolationGuard,
        plan: SessionPlan,
        locks: SessionLocks,
        clock: Clock,
        journal: Journal,
    ) -> None:
        self._records = records
        self._workspaces = workspaces
        self._containers = containers
        self._readiness = readiness
        self._isolation = isolation
        self._plan = plan
        self._locks = locks
        self._clock = clock
        self._journal = journal

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
        undo = UndoStack()
        try:
            info = await self._start(session, pack, undo)
            running = await self._records.change(
                session.id,
                {SessionStatus.STARTING},
                SessionChange(status=SessionStatus.RUNNING, container_id=info.id, started_at=self._clock.now()),
            )
        except StateConflict as error:
            # The stop flow owns everything from here on, and is waiting for this session's lock.
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
        undo.push("remove the container", lambda: self._containers.remove(session.container_name))
        await self._containers.create(self._plan.container(session, image, workspace))
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
        failures = await undo.unwind()
        self._journal.create_failed(session, error=reason, undo_failures=failures)
        message = f"create failed: {reason}"
        if failures:
            # Something may still exist, and a container may still hold the GPU: the stop flow keeps trying.
            await self._change_to(session, SessionStatus.STOPPING, message, None)
            return
        ended = await self._change_to(session, SessionStatus.ERROR, message, self._clock.now())
        self._journal.stopped(ended, reason=StopReason.CREATE_FAILED.value, error=reason)

    async def _change_to(
        self, session: Session, status: SessionStatus, message: str, stopped_at: datetime | None
    ) -> Session:
        change = SessionChange(status=status, error_message=message, stopped_at=stopped_at)
        return await self._records.change(session.id, {SessionStatus.STARTING, SessionStatus.STOPPING}, change)
