"""Owns the endpoints of sessions; translates only."""

from __future__ import annotations

from aiohttp import web

from facade.envelope import Page, success
from facade.keys import principal_of, request_id_of
from facade.schemas.bodies import Empty, read_body
from facade.schemas.paging import cursor_text, read_cursor
from facade.schemas.paths import read_id
from facade.schemas.queries import read_query
from facade.schemas.sessions import (
    CreateSession,
    CurrentSession,
    Message,
    SessionQuery,
    SessionView,
    StartedSession,
)
from facade.sessions.service import SessionService
from medforged.contract.sessions import SessionPage

__all__ = ["SessionHandlers", "session_page", "stop_message"]


class SessionHandlers:
    """Create, list, read and stop one's sessions."""

    def __init__(self, sessions: SessionService) -> None:
        self._sessions = sessions

    async def create(self, request: web.Request) -> web.StreamResponse:
        wanted = await read_body(request, CreateSession)
        session = await self._sessions.create(
            principal_of(request), wanted.tier, wanted.pack_id, correlation_id=request_id_of(request)
        )
        data = StartedSession(message="Session started.", session=SessionView.of(session))
        return success(request, data, status=201)

    async def page(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, SessionQuery)
        found = await self._sessions.page(
            principal_of(request).user_id,
            query.status,
            read_cursor(query.cursor),
            query.limit,
            correlation_id=request_id_of(request),
        )
        return session_page(request, found, query.limit)

    async def current(self, request: web.Request) -> web.StreamResponse:
        session = await self._sessions.current(principal_of(request), correlation_id=request_id_of(request))
        return success(request, CurrentSession(session=SessionView.of(session) if session else None))

    async def get(self, request: web.Request) -> web.StreamResponse:
        session = await self._sessions.get(
            principal_of(request), read_id(request), correlation_id=request_id_of(request)
        )
        return success(request, CurrentSession(session=SessionView.of(session)))

    async def stop(self, request: web.Request) -> web.StreamResponse:
        session_id = read_id(request)
        await read_body(request, Empty)
        requested = await self._sessions.stop(principal_of(request), session_id, correlation_id=request_id_of(request))
        return success(request, Message(message=stop_message(requested)), status=202)


def session_page(request: web.Request, found: SessionPage, limit: int) -> web.Response:
    """A listing's answer."""
    last = found.sessions[-1] if found.has_more and found.sessions else None
    page = Page(
        limit=limit, next_cursor=cursor_text(last.created_at, last.id) if last else None, has_more=found.has_more
    )
    return success(request, [SessionView.of(session) for session in found.sessions], page=page)


def stop_message(requested: bool) -> str:
    return "Session stop requested." if requested else "Session already terminal."
