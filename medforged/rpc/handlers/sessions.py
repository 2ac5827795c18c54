"""Owns translating the `sessions.*` methods."""

from __future__ import annotations

import msgspec

from medforged.calls.server import CallRefused
from medforged.contract import sessions as wire
from medforged.contract.errors import ErrorCode
from medforged.domain.sessions import Session, SessionStatus, Tier
from medforged.ports.containers import ContainerRuntime
from medforged.ports.state import SessionQuery, StateStore
from medforged.services.creation import SessionCreation
from medforged.services.ending import SessionEnding
from medforged.services.orphans import OrphanSearch
from medforged.services.recovery import RecoveryLoop
from medforged.services.report import Action

__all__ = ["SessionHandlers", "session_to_wire"]


class SessionHandlers:
    """The `sessions.*` methods."""

    def __init__(
        self,
        creation: SessionCreation,
        ending: SessionEnding,
        recovery: RecoveryLoop,
        orphans: OrphanSearch,
        state: StateStore,
        containers: ContainerRuntime,
    ) -> None:
        self._creation = creation
        self._ending = ending
        self._recovery = recovery
        self._orphans = orphans
        self._state = state
        self._containers = containers

    async def create(self, params: wire.CreateSession) -> wire.SessionResult:
        session = await self._creation.create(
            user_id=params.user_id,
            tier=Tier(params.tier.value),
            pack_id=params.pack_id,
            max_concurrent_sessions=params.max_concurrent_sessions,
        )
        return wire.SessionResult(session=session_to_wire(session))

    async def get(self, params: wire.SessionRef) -> wire.SessionResult:
        return wire.SessionResult(session=session_to_wire(await self._state.session(params.session_id)))

    async def list(self, params: wire.ListSessions) -> wire.SessionPage:
        if (params.before_created_at is None) is not (params.before_id is None):
            raise CallRefused(
                ErrorCode.BAD_REQUEST, "before_created_at and before_id go together; give both or neither"
            )
        before = None
        if params.before_created_at is not None and params.before_id is not None:
            if params.before_created_at.tzinfo is None:
                raise CallRefused(ErrorCode.BAD_REQUEST, "before_created_at has no time zone; write it in UTC with a Z")
            before = (params.before_created_at, params.before_id)
        # One more than asked for tells whether there are more.
        found = await self._state.sessions(
            SessionQuery(
                user_id=params.user_id,
                statuses=frozenset(SessionStatus(status.value) for status in params.statuses),
                before=before,
                limit=params.limit + 1,
            )
        )
        return wire.SessionPage(
            sessions=[session_to_wire(session) for session in found[: params.limit]], has_more=len(found) > params.limit
        )

    async def stop(self, params: wire.SessionRef) -> wire.StopAccepted:
        session, requested = await self._ending.request_stop(params.session_id)
        return wire.StopAccepted(session=session_to_wire(session), requested=requested)

    async def logs(self, params: wire.SessionLogs) -> wire.SessionLogsText:
        session = await self._state.session(params.session_id)
        return wire.SessionLogsText(text=await self._containers.logs(session.container_name, params.lines))

    async def reconcile(self, _params: wire.ReconcileSessions) -> wire.ReconcileReport:
        report = await self._recovery.on_demand()
        orphans, problems = await self._orphans.find()
        return wire.ReconcileReport(
            seconds=report.seconds,
            sessions=report.sessions,
            actions=[_action_to_wire(action) for action in report.actions],
            orphans=len(orphans),
            problems=[*problems],
        )


def _action_to_wire(action: Action) -> wire.ReconcileAction:
    return wire.ReconcileAction(
        subject=action.subject,
        session_id=action.session.id if action.session else None,
        slug=action.session.slug if action.session else None,
        found=action.found,
        outcome=wire.ReconcileOutcome(action.outcome.value),
        message=action.message,
    )


def session_to_wire(session: Session) -> wire.Session:
    """The record without what only the daemon needs."""
    return msgspec.convert(
        {name: getattr(session, name) for name in wire.Session.__struct_fields__}, wire.Session, from_attributes=True
    )
