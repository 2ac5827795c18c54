"""Owns making records and host agree, at start, in every poll and on demand (the table in contract.md section 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from medforged.domain.containers import ContainerState, ContainerSummary
from medforged.domain.errors import ContainerError, ContainerUnavailable, MedForgeError
from medforged.domain.sessions import Session, SessionStatus
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.services.bounded import bounded
from medforged.services.gpus import GpuWatch
from medforged.services.journal import Journal, RecoveryMode
from medforged.services.locks import SessionLocks
from medforged.services.records import Records
from medforged.services.report import Action, Outcome, Report
from medforged.services.settling import SessionSettling

__all__ = ["Reconciliation"]

# A pass waits this long for the sessions that it has to move on. Whatever takes longer goes on without it.
_PATIENCE_SECONDS = 20.0


class Reconciliation:
    """A pass costs one question to the engine and one to the database, and more only for sessions that do not match."""

    def __init__(
        self,
        *,
        records: Records,
        containers: ContainerRuntime,
        settling: SessionSettling,
        gpus: GpuWatch,
        locks: SessionLocks,
        clock: Clock,
        journal: Journal,
    ) -> None:
        self._records = records
        self._containers = containers
        self._settling = settling
        self._gpus = gpus
        self._locks = locks
        self._clock = clock
        self._journal = journal
        self._serial = asyncio.Lock()

    async def run(self, mode: RecoveryMode, *, patience_seconds: float = _PATIENCE_SECONDS) -> Report:
        """One pass over every active session; passes wait for each other.

        Raises ContainerUnavailable when the engine does not answer: then nothing can be concluded about any session;
        and StateError. A failure of one session is told to the journal and does not stop the others.
        """
        async with self._serial:
            began = self._clock.monotonic()
            # The listing comes first: what a session that is younger than it lacks there says nothing.
            listing = {summary.name: summary for summary in await self._containers.containers()}
            sessions = await self._records.active()
            actions = [
                *await self._settle(sessions, listing, mode, patience_seconds),
                *await self._remove_leftovers(sessions, listing, patience_seconds),
                *await self._release_gpus(),
            ]
            report = Report(self._clock.monotonic() - began, len(sessions), tuple(actions))
        if report.updated or mode is RecoveryMode.STARTUP:
            self._journal.polled(updated=report.updated, recovery_mode=mode)
        return report

    async def _settle(
        self,
        sessions: tuple[Session, ...],
        listing: Mapping[str, ContainerSummary],
        mode: RecoveryMode,
        patience_seconds: float,
    ) -> list[Action]:
        tasks: dict[asyncio.Task[object], Session] = {}
        for session in sessions:
            if _agrees(session, listing.get(session.container_name)):
                if mode is RecoveryMode.STARTUP:
                    self._journal.decided(session, state=ContainerState.RUNNING.value, recovery_mode=mode)
            elif session.status is SessionStatus.STOPPING or not self._locks.held(session.id):
                tasks[self._settling.begin(session, mode)] = session
        if not tasks:
            return []
        await asyncio.wait(tasks, timeout=patience_seconds)
        return [action for task, session in tasks.items() if (action := _told(task, session)) is not None]

    async def _remove_leftovers(
        self, sessions: tuple[Session, ...], listing: Mapping[str, ContainerSummary], patience_seconds: float
    ) -> list[Action]:
        """Containers of sessions that have ended hold a GPU for nobody; the record explains them, so they may go.

        One that does not go within the pass's patience holds up neither the others nor the next pass.
        """
        active = {session.id for session in sessions}
        left = {
            found.session_id: found
            for found in listing.values()
            if found.session_id is not None and found.session_id not in active
        }
        actions = []
        for session_id in await self._records.recorded(left) if left else ():
            name = left[session_id].name
            session = await self._records.get(session_id)
            if session.active or session.container_name != name or self._locks.held(session_id):
                continue
            try:
                await bounded(
                    self._containers.remove(name), patience_seconds, ContainerError, f"cannot remove container {name}"
                )
            except ContainerUnavailable:
                raise
            except ContainerError as error:
                actions.append(Action(name, session, "left over", Outcome.FAILED, str(error)))
                continue
            self._journal.note("session.leftover.removed", session_id=str(session.id), slug=session.slug)
            actions.append(Action(name, session, "left over", Outcome.REMOVED))
        return actions

    async def _release_gpus(self) -> list[Action]:
        return [
            Action(f"GPU {gpu.id}", None, "in quarantine", Outcome.RELEASED) for gpu in await self._gpus.release_free()
        ]


def _agrees(session: Session, summary: ContainerSummary | None) -> bool:
    return (
        session.status is SessionStatus.RUNNING
        and summary is not None
        and summary.state is ContainerState.RUNNING
        and summary.id == session.container_id
        and session.started_at is not None
    )


def _told(task: asyncio.Task[object], session: Session) -> Action | None:
    """What became of a session; None when there was nothing to do after all."""
    subject = session.container_name
    if not task.done():
        message = f"{session.step.value} is still under way"
        return Action(subject, session, session.status.value, Outcome.PENDING, message)
    if task.cancelled():
        return None
    error = task.exception()
    if error is None:
        result = task.result()
        return result if isinstance(result, Action) else None
    if isinstance(error, MedForgeError):
        return Action(subject, session, session.status.value, Outcome.FAILED, str(error))
    raise error
