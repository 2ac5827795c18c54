"""Owns the endpoints of sessions; translates only."""

from __future__ import annotations

import re
from uuid import UUID

from aiohttp import web

from facade.envelope import Page, success
from facade.keys import principal_of, request_id_of
from facade.problems import validation
from facade.schemas.bodies import Empty, read_body
from facade.schemas.sessions import CreateSession, CurrentSession, Message, SessionView, StartedSession
from facade.sessions.paging import cursor_after, read_cursor, read_limit, read_statuses
from facade.sessions.service import SessionService

__all__ = ["SessionHandlers"]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


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
        limit = read_limit(request)
        found = await self._sessions.page(
            principal_of(request),
            read_statuses(request),
            read_cursor(request),
            limit,
            correlation_id=request_id_of(request),
        )
        page = Page(
            limit=limit,
            next_cursor=cursor_after(found.sessions[-1]) if found.has_more and found.sessions else None,
            has_more=found.has_more,
        )
        return success(request, [SessionView.of(session) for session in found.sessions], page=page)

    async def current(self, request: web.Request) -> web.StreamResponse:
        session = await self._sessions.current(principal_of(request), correlation_id=request_id_of(request))
        return success(request, CurrentSession(session=SessionView.of(session) if session else None))

    async def get(self, request: web.Request) -> web.StreamResponse:
        session = await self._sessions.get(
            principal_of(request), _session_id(request), correlation_id=request_id_of(request)
        )
        return success(request, CurrentSession(session=SessionView.of(session)))

    async def stop(self, request: web.Request) -> web.StreamResponse:
        session_id = _session_id(request)
        await read_body(request, Empty)
        requested = await self._sessions.stop(principal_of(request), session_id, correlation_id=request_id_of(request))
        message = "Session stop requested." if requested else "Session already terminal."
        return success(request, Message(message=message), status=202)


def _session_id(request: web.Request) -> UUID:
    text = request.match_info["id"]
    if not _UUID.fullmatch(text):
        raise validation((["path", "id"], "A session's id is a UUID.", "uuid_parsing"))
    return UUID(text)
