"""Owns making records and host agree, at start and in every poll (the table in contract.md section 3)."""

from __future__ import annotations

import asyncio

from medforged.domain.containers import IDE_PORT, ContainerInfo, ContainerState
from medforged.domain.errors import ContainerError, ContainerUnavailable, MedForgeError, NotReady, StateConflict
from medforged.domain.sessions import Session, SessionStatus
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.ports.readiness import ReadinessProbe
from medforged.ports.state import SessionChange
from medforged.services.ending import SessionEnding
from medforged.services.journal import Journal, RecoveryMode
from medforged.services.locks import SessionLocks
from medforged.services.records import Records

__all__ = ["Reconciliation"]

# contract.md section 3: "state unknown -> 3 retries 0.25 s apart, then error".
_UNKNOWN_RETRIES = 3
_UNKNOWN_RETRY_SECONDS = 0.25
# Sessions are looked at side by side, but not all at once.
_CONCURRENCY = 8


class Reconciliation:
    """One pass looks at every active session and moves on whatever does not match the host."""

    def __init__(
        self,
        *,
        records: Records,
        containers: ContainerRuntime,
        readiness: ReadinessProbe,
        ending: SessionEnding,
        locks: SessionLocks,
        clock: Clock,
        journal: Journal,
        start_timeout_seconds: float,
    ) -> None:
        self._records = records
        self._containers = containers
        self._readiness = readiness
        self._ending = ending
        self._locks = locks
        self._clock = clock
        self._journal = journal
        self._start_timeout_seconds = start_timeout_seconds

    async def run(self, mode: RecoveryMode) -> int:
        """One pass; returns how many sessions it changed.

        Raises ContainerUnavailable when the engine does not answer: then nothing can be concluded about any session.
        A failure of one session is told to the journal and does not stop the others.
        """
        await self._containers.ping()
        slots = asyncio.Semaphore(_CONCURRENCY)

        async def one(session: Session) -> bool:
            async with slots:
                return await self._one(session, mode)

        sessions = await self._records.active()
        results = await asyncio.gather(*(one(session) for session in sessions), return_exceptions=True)
        updated = 0
        for session, result in zip(sessions, results, strict=True):
            if isinstance(result, bool):
                updated += result
            elif isinstance(result, ContainerUnavailable) or not isinstance(result, MedForgeError):
                raise result
            else:
                self._journal.failed(session, error=str(result), recovery_mode=mode.value)
        updated += await self._remove_leftovers()
        if updated or mode is RecoveryMode.STARTUP:
            self._journal.polled(updated=updated, recovery_mode=mode)
        return updated

    async def _one(self, session: Session, mode: RecoveryMode) -> bool:
        if self._locks.held(session.id):
            # A create or stop of this process is at work on it.
            return False
        if session.status is SessionStatus.STOPPING:
            self._journal.decided(session, state="stopping", recovery_mode=mode)
            return await self._ending.finish_stop(session.id)
        seen = await self._inspect(session)
        self._decided(session, seen, mode)
        match seen.state:
            case ContainerState.RUNNING:
                return await self._keep_running(session, seen)
            case ContainerState.MISSING:
                return await self._ending.bury(session.id, "container missing")
            case ContainerState.UNKNOWN:
                return await self._ending.bury(session.id, "container state unknown")
            case ContainerState.CREATED | ContainerState.EXITED:
                return await self._ending.bury(session.id, _death(seen))

    async def _inspect(self, session: Session) -> ContainerInfo:
        seen = await self._containers.inspect(session.container_name)
        for _ in range(_UNKNOWN_RETRIES):
            if seen.state is not ContainerState.UNKNOWN:
                break
            await self._clock.sleep(_UNKNOWN_RETRY_SECONDS)
            seen = await self._containers.inspect(session.container_name)
        return seen

    async def _keep_running(self, session: Session, seen: ContainerInfo) -> bool:
        if session.status is SessionStatus.RUNNING and session.container_id == seen.id and session.started_at:
            return False
        async with self._locks.hold(session.id):
            if session.status is SessionStatus.STARTING and seen.address is not None:
                # The daemon was interrupted between start and readiness; `running` still has to mean ready.
                try:
                    await self._readiness.wait(seen.address, IDE_PORT, self._start_timeout_seconds)
                except NotReady as error:
                    self._journal.failed(session, error=str(error))
                    await self._containers.stop(session.container_name, 0)
                    return False
            change = SessionChange(
                status=SessionStatus.RUNNING,
                container_id=seen.id,
                started_at=session.started_at or self._clock.now(),
            )
            try:
                await self._records.change(session.id, {session.status}, change)
            except StateConflict:
                # A stop request came between; its own flow follows.
                return False
            return True

    async def _remove_leftovers(self) -> int:
        """Containers of sessions that have ended hold a GPU for nobody; the record explains them, so they may go."""
        removed = 0
        for info in await self._containers.containers():
            if info.session_id is None or self._locks.held(info.session_id):
                continue
            try:
                session = await self._records.get(info.session_id)
                if session.active or session.container_name != info.name:
                    continue
                await self._containers.remove(info.name)
            except ContainerUnavailable:
                raise
            except (ContainerError, MedForgeError):
                # No record: an orphan, which is listed for operators and never removed by itself.
                continue
            self._journal.note("session.leftover.removed", session_id=str(session.id), slug=session.slug)
            removed += 1
        return removed

    def _decided(self, session: Session, seen: ContainerInfo, mode: RecoveryMode) -> None:
        self._journal.decided(session, state=seen.state.value, recovery_mode=mode, container_id=seen.id)


def _death(seen: ContainerInfo) -> str:
    if seen.state is ContainerState.EXITED and seen.oom_killed:
        return "container exited unexpectedly: it ran out of memory"
    return "container exited unexpectedly"
