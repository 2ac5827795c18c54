"""Owns the endpoints of admins; translates only."""

from __future__ import annotations

from aiohttp import web

from facade.auth.administration import Administration
from facade.envelope import Page, success
from facade.keys import principal_of, request_id_of
from facade.problems import Problem, admins_only, not_found
from facade.schemas.admin import AdminSessionQuery, ChangeUser, UserQuery, UserView
from facade.schemas.bodies import Empty, read_body
from facade.schemas.paging import cursor_text, read_cursor
from facade.schemas.paths import read_id
from facade.schemas.queries import read_query
from facade.schemas.sessions import Message
from facade.sessions.handlers import session_page, stop_message
from facade.sessions.service import SessionService
from facade.store.accounts import LastAdmin, NotAdmin, UserNotFound

__all__ = ["AdminHandlers", "last_admin", "user_not_found"]


class AdminHandlers:
    """List and change accounts, list and stop sessions."""

    def __init__(self, administration: Administration, sessions: SessionService) -> None:
        self._administration = administration
        self._sessions = sessions

    async def users(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, UserQuery)
        after = read_cursor(query.cursor)
        before = (after.created_at, after.id) if after else None
        found, has_more = await self._administration.page(query.filter(), before, query.limit)
        page = Page(
            limit=query.limit,
            next_cursor=cursor_text(found[-1].created_at, found[-1].id) if has_more else None,
            has_more=has_more,
        )
        return success(request, [UserView.of(user) for user in found], page=page)

    async def change_user(self, request: web.Request) -> web.StreamResponse:
        user_id = read_id(request)
        changes = (await read_body(request, ChangeUser)).changes()
        try:
            user = await self._administration.change(user_id, changes, actor=principal_of(request).user_id)
        except UserNotFound as error:
            raise user_not_found() from error
        except LastAdmin as error:
            raise last_admin() from error
        except NotAdmin as error:
            raise admins_only() from error
        return success(request, UserView.of(user))

    async def sessions(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, AdminSessionQuery)
        found = await self._sessions.page(
            query.user_id,
            query.status,
            read_cursor(query.cursor),
            query.limit,
            correlation_id=request_id_of(request),
        )
        return session_page(request, found, query.limit)

    async def stop_session(self, request: web.Request) -> web.StreamResponse:
        session_id = read_id(request)
        await read_body(request, Empty)
        requested = await self._sessions.stop(principal_of(request), session_id, correlation_id=request_id_of(request))
        return success(request, Message(message=stop_message(requested)), status=202)


def user_not_found() -> Problem:
    return not_found("User not found.")


def last_admin() -> Problem:
    return Problem(409, "The last admin can be neither demoted nor disabled.")
