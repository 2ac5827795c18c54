"""Owns who may call a route: the origin guard, whether a caller has to be signed in or an admin, a token's scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum

from aiohttp import web

from facade.auth.api_tokens import ApiTokens
from facade.auth.bearer import bearer_of, insufficient_scope, invalid_token
from facade.auth.cookies import Cookies
from facade.auth.logins import Logins
from facade.auth.origins import OriginGuard
from facade.auth.principals import Principal, Scope
from facade.hosts import Hosts
from facade.keys import set_principal
from facade.problems import admins_only, not_found, not_signed_in

__all__ = ["Access", "Handler", "Who"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Who(Enum):
    """Who may call a route."""

    ANYONE = "anyone"
    CADDY = "Caddy"
    """Caddy asks on behalf of a caller under a session's host name; the handler itself decides."""
    SIGNED_IN = "signed in"
    ADMIN = "admin"


class Access:
    """Puts the checks of a route in front of its handler."""

    def __init__(
        self, hosts: Hosts, origins: OriginGuard, cookies: Cookies, logins: Logins, api_tokens: ApiTokens
    ) -> None:
        self._hosts = hosts
        self._origins = origins
        self._cookies = cookies
        self._logins = logins
        self._api_tokens = api_tokens

    def guard(self, handler: Handler, who: Who, *, changes: bool, scope: Scope | None = None) -> Handler:
        """The handler, reached only by those who may.

        `changes`: the origin of the page that asks is checked. `scope`: what an API token needs; without one no token
        gets here.
        """
        if who is Who.CADDY:
            return handler

        async def guarded(request: web.Request) -> web.StreamResponse:
            # What a tenant's page finds under its own host name is never the platform's API, whatever the proxy does.
            if self._hosts.session_slug(request.headers.get("Host", "")) is not None:
                raise not_found()
            if changes:
                self._origins.check(request)
            if who is not Who.ANYONE:
                principal = await self._identify(request, scope)
                if who is Who.ADMIN and not principal.is_admin:
                    raise admins_only()
                set_principal(request, principal)
            return await handler(request)

        return guarded

    async def _identify(self, request: web.Request, scope: Scope | None) -> Principal:
        """Who is asking: an API token decides alone where there is one. Raises Problem 401 or 403."""
        token = bearer_of(request)
        if token is None:
            principal = await self._logins.identify(self._cookies.tokens(request))
            if principal is None:
                raise not_signed_in()
            return principal
        principal = await self._api_tokens.identify(token)
        if principal is None:
            raise invalid_token()
        if scope is None or principal.scopes is None or scope not in principal.scopes:
            raise insufficient_scope(scope)
        return principal
