"""Owns THE route table of the facade: what can be asked of it, by whom, and what it answers.

GET routes answer HEAD too, every path OPTIONS. The web UI's files follow the table; they are for anyone (see
`facade.site`). The OpenAPI document is made of this table and of the types that it names (see `facade.openapi`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from facade.admin.handlers import AdminHandlers, last_admin, user_not_found
from facade.auth.api_token_handlers import ApiTokenHandlers, api_token_not_found, too_many_api_tokens
from facade.auth.handlers import (
    AuthHandlers,
    account_disabled,
    busy,
    email_taken,
    wrong_credentials,
    wrong_password,
)
from facade.auth.principals import Scope
from facade.health import FacadeHealth, HealthReport
from facade.middleware.access import Who
from facade.openapi.handlers import OpenApiHandlers
from facade.problems import admins_only, not_signed_in, rate_limited
from facade.routing import Answer, Route
from facade.schemas.admin import AdminSessionQuery, ChangeUser, UserQuery, UserView, nothing_to_change
from facade.schemas.api_tokens import ApiTokenView, CreateApiToken, NewApiToken, unreadable_name
from facade.schemas.bodies import Empty
from facade.schemas.sessions import CreateSession, CurrentSession, Message, SessionQuery, SessionView, StartedSession
from facade.schemas.users import ChangeMe, Credentials, Identity
from facade.sessions.handlers import SessionHandlers
from facade.sessions.proxy import SessionProxy, access_denied, not_yet_known
from facade.sessions.refusals import refusals, session_not_found
from medforged.contract.errors import ErrorCode as Code

__all__ = ["Handlers", "table"]


@dataclass(frozen=True, slots=True)
class Handlers:
    """Everything that the table names."""

    auth: AuthHandlers
    api_tokens: ApiTokenHandlers
    sessions: SessionHandlers
    proxy: SessionProxy
    health: FacadeHealth
    admin: AdminHandlers
    openapi: OpenApiHandlers


_SIGNED_IN = Answer(Identity, headers=("Set-Cookie",))
_SIGNED_OUT = Answer(Message, headers=("Set-Cookie",))
_REPORT = Answer(HealthReport, enveloped=False)
_DOCUMENT = Answer(dict[str, Any], headers=("ETag",), enveloped=False)
_PAGE = Answer(str, headers=("ETag",), enveloped=False, media="text/html")
_UNCHANGED = Answer(None, headers=("ETag",))
_COME_IN = Answer(None, headers=("X-Upstream",))
_TO_LOGIN = Answer(None, headers=("Location",))

_CREATE_REFUSED = refusals(
    Code.PACK_NOT_FOUND, Code.SESSION_LIMIT_REACHED, Code.NO_GPU_AVAILABLE, Code.STOPPED_WHILE_STARTING,
    Code.CREATE_FAILED, Code.TIER_UNAVAILABLE,
)  # fmt: skip
_ASKED = refusals()
_ASKED_FOR_ONE = refusals(Code.SESSION_NOT_FOUND)
_ENTRY_REFUSED = (not_signed_in(), access_denied(), session_not_found(), not_yet_known())


def table(do: Handlers) -> tuple[Route, ...]:
    # fmt: off
    return (
        Route("GET",  "/healthz", do.health.get, Who.ANYONE, changes=False,
              summary="Whether the facade and what it depends on are well", answers={200: _REPORT, 503: _REPORT}),
        Route("GET",  "/api/v1/openapi.json", do.openapi.document, Who.ANYONE, changes=False,
              summary="This document", answers={200: _DOCUMENT, 304: _UNCHANGED}),
        Route("GET",  "/docs", do.openapi.page, Who.ANYONE, changes=False,
              summary="This document, for people", answers={200: _PAGE, 304: _UNCHANGED}),

        Route("POST", "/api/v1/auth/signup", do.auth.signup, Who.ANYONE, changes=True,
              summary="Make an account and sign in to it", body=Credentials,
              answers={201: _SIGNED_IN}, problems=(email_taken(), rate_limited(), busy())),
        Route("POST", "/api/v1/auth/login", do.auth.login, Who.ANYONE, changes=True,
              summary="Sign in", body=Credentials, answers={200: _SIGNED_IN},
              problems=(wrong_credentials(), account_disabled(), rate_limited(), busy())),
        Route("POST", "/api/v1/auth/logout", do.auth.logout, Who.ANYONE, changes=True,
              summary="Sign out: the login is dead at once, everywhere", body=Empty, answers={200: _SIGNED_OUT}),
        Route("GET",  "/api/v1/auth/session-proxy", do.proxy.authorize, Who.CADDY, changes=False,
              summary="Whether this cookie may open this host, and where it leads",
              answers={200: _COME_IN, 302: _TO_LOGIN}, problems=_ENTRY_REFUSED),
        Route("GET",  "/api/v1/me", do.auth.me, Who.SIGNED_IN, changes=False, scope=Scope.ACCOUNT_READ,
              summary="Who is signed in", answers={200: Identity}),
        Route("PATCH", "/api/v1/me", do.auth.change_me, Who.SIGNED_IN, changes=True,
              summary="Change one's address or password; other logins end, with the password API tokens too",
              body=ChangeMe, answers={200: _SIGNED_IN},
              problems=(wrong_password(), email_taken(), nothing_to_change(), rate_limited(), busy())),
        Route("GET",  "/api/v1/me/tokens", do.api_tokens.list, Who.SIGNED_IN, changes=False,
              summary="One's own API tokens, newest first", answers={200: list[ApiTokenView]}),
        Route("POST", "/api/v1/me/tokens", do.api_tokens.create, Who.SIGNED_IN, changes=True,
              summary="Make an API token; its secret is told this once", body=CreateApiToken,
              answers={201: NewApiToken},
              problems=(admins_only(), too_many_api_tokens(), unreadable_name(), rate_limited())),
        Route("DELETE", "/api/v1/me/tokens/{id}", do.api_tokens.revoke, Who.SIGNED_IN, changes=True,
              summary="Revoke an API token: it is dead at once, everywhere", body=Empty,
              answers={200: Message}, problems=(api_token_not_found(),)),

        Route("POST", "/api/v1/sessions", do.sessions.create, Who.SIGNED_IN, changes=True, scope=Scope.SESSIONS_WRITE,
              summary="Start a session; answers when its IDE does", body=CreateSession,
              answers={201: StartedSession}, problems=_CREATE_REFUSED),
        Route("GET",  "/api/v1/sessions", do.sessions.page, Who.SIGNED_IN, changes=False, scope=Scope.SESSIONS_READ,
              summary="One's own sessions, newest first, ended ones included", query=SessionQuery,
              answers={200: list[SessionView]}, problems=_ASKED),
        Route("GET",  "/api/v1/sessions/current", do.sessions.current, Who.SIGNED_IN, changes=False,
              scope=Scope.SESSIONS_READ,
              summary="One's newest active session", answers={200: CurrentSession}, problems=_ASKED),
        Route("GET",  "/api/v1/sessions/{id}", do.sessions.get, Who.SIGNED_IN, changes=False, scope=Scope.SESSIONS_READ,
              summary="A session of one's own; an admin's may be anybody's",
              answers={200: CurrentSession}, problems=_ASKED_FOR_ONE),
        Route("POST", "/api/v1/sessions/{id}/stop", do.sessions.stop, Who.SIGNED_IN, changes=True,
              scope=Scope.SESSIONS_WRITE,
              summary="Ask a session to stop, as often as one likes", body=Empty,
              answers={202: Message}, problems=_ASKED_FOR_ONE),

        Route("GET",  "/api/v1/admin/users", do.admin.users, Who.ADMIN, changes=False, scope=Scope.ADMIN_READ,
              summary="Accounts, newest first", query=UserQuery, answers={200: list[UserView]}),
        Route("PATCH", "/api/v1/admin/users/{id}", do.admin.change_user, Who.ADMIN, changes=True,
              scope=Scope.ADMIN_WRITE,
              summary="Change what an account may do; one that is disabled is signed out at once", body=ChangeUser,
              answers={200: UserView}, problems=(user_not_found(), last_admin(), nothing_to_change())),
        Route("GET",  "/api/v1/admin/sessions", do.admin.sessions, Who.ADMIN, changes=False, scope=Scope.ADMIN_READ,
              summary="Everybody's sessions, newest first, ended ones included", query=AdminSessionQuery,
              answers={200: list[SessionView]}, problems=_ASKED),
        Route("POST", "/api/v1/admin/sessions/{id}/stop", do.admin.stop_session, Who.ADMIN, changes=True,
              scope=Scope.ADMIN_WRITE,
              summary="Ask anybody's session to stop", body=Empty, answers={202: Message}, problems=_ASKED_FOR_ONE),
    )
    # fmt: on
