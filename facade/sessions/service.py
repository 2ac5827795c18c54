"""Owns what users do with sessions: whose one is, the calls to the daemon, and telling the registry of them."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

import msgspec

from facade.auth.principals import Principal, Scope
from facade.schemas.paging import Cursor
from facade.sessions.refusals import problem_of, session_not_found
from facade.sessions.registry import Registry
from medforged.client import DaemonClient, DaemonError
from medforged.contract import methods
from medforged.contract.methods import Method
from medforged.contract.sessions import (
    CreateSession,
    ListSessions,
    Session,
    SessionPage,
    SessionRef,
    SessionStatus,
    StopAccepted,
    Tier,
)

__all__ = ["SessionService"]

ACTIVE = [SessionStatus.STARTING, SessionStatus.RUNNING, SessionStatus.STOPPING]

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


class SessionService:
    """Sessions on behalf of a principal. `correlation_id` goes with every call into the daemon's journal."""

    def __init__(self, client: DaemonClient, registry: Registry) -> None:
        self._client = client
        self._registry = registry

    async def create(self, principal: Principal, tier: Tier, pack_id: UUID | None, *, correlation_id: str) -> Session:
        """A session whose IDE answers. The registry knows it before the caller does. Raises Problem."""
        params = CreateSession(
            user_id=principal.user_id,
            tier=tier,
            pack_id=pack_id,
            max_concurrent_sessions=principal.max_concurrent_sessions,
        )
        try:
            result = await self._client.call(methods.sessions_create, params, correlation_id=correlation_id)
        except DaemonError as error:
            raise problem_of(error, starting=True) from error
        self._registry.apply(result.session)
        return result.session

    async def stop(self, principal: Principal, session_id: UUID, *, correlation_id: str) -> bool:
        """Ask a session to stop; false when it had ended already. It is unreachable from here on. Raises Problem."""
        known = self._registry.by_id(session_id)
        if known is None:
            known = await self._fetch(session_id, correlation_id)
        _require(principal, known, Scope.ADMIN_WRITE)
        accepted: StopAccepted = await self._call(
            methods.sessions_stop, SessionRef(session_id=session_id), correlation_id
        )
        self._registry.apply(accepted.session)
        return accepted.requested

    async def get(self, principal: Principal, session_id: UUID, *, correlation_id: str) -> Session:
        """The principal's own session, an admin's any. Raises Problem 404 for another's, as for none."""
        session = await self._fetch(session_id, correlation_id)
        _require(principal, session, Scope.ADMIN_READ)
        return session

    async def current(self, principal: Principal, *, correlation_id: str) -> Session | None:
        """The principal's newest active session; from memory while that is up to date. Raises Problem."""
        if self._registry.live:
            return self._registry.newest_of(principal.user_id)
        params = ListSessions(user_id=principal.user_id, statuses=ACTIVE, limit=1)
        page = await self._call(methods.sessions_list, params, correlation_id)
        return page.sessions[0] if page.sessions else None

    async def page(
        self,
        user_id: UUID | None,
        statuses: list[SessionStatus],
        after: Cursor | None,
        limit: int,
        *,
        correlation_id: str,
    ) -> SessionPage:
        """A user's sessions, or (None) everybody's, newest first. Raises Problem."""
        params = ListSessions(
            user_id=user_id,
            statuses=statuses,
            before_created_at=after.created_at if after else None,
            before_id=after.id if after else None,
            limit=limit,
        )
        return await self._call(methods.sessions_list, params, correlation_id)

    async def _fetch(self, session_id: UUID, correlation_id: str) -> Session:
        return (await self._call(methods.sessions_get, SessionRef(session_id=session_id), correlation_id)).session

    async def _call(self, method: Method[P, R], params: P, correlation_id: str) -> R:
        try:
            return await self._client.call(method, params, correlation_id=correlation_id)
        except DaemonError as error:
            raise problem_of(error) from error


def _require(principal: Principal, session: Session, scope: Scope) -> None:
    """Raises Problem 404 for another's session, unless an admin asks; an admin's token needs the scope for that."""
    if session.user_id != principal.user_id and not principal.administers(scope):
        raise session_not_found()
