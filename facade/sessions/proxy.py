"""Owns the answer to Caddy's question whether a request may enter a session's host, and where it leads.

It is asked for every request of every open IDE, and asks neither the daemon nor the database for a login and a session
that are known; `facade.sessions.fastpath` answers what is plain before it comes here. A good answer has headers only:
Caddy reads the upstream from them and nobody reads a body.
"""

from __future__ import annotations

from aiohttp import web

from facade.auth.cookies import Cookies
from facade.auth.logins import Logins
from facade.hosts import Hosts
from facade.problems import Problem, not_signed_in, unavailable
from facade.sessions.pages import DENIED, MISSING, STARTING, UNKNOWN, Page, page_response
from facade.sessions.refusals import session_not_found
from facade.sessions.registry import Registry
from medforged.contract.sessions import SessionStatus

__all__ = ["SESSION_PROXY_PATH", "SessionProxy", "access_denied", "not_yet_known", "upstream"]

SESSION_PROXY_PATH = "/api/v1/auth/session-proxy"

_IDE_PORT = 8080


class SessionProxy:
    """Decides by Host and cookie alone; no other header says who is asking."""

    def __init__(self, hosts: Hosts, cookies: Cookies, logins: Logins, registry: Registry) -> None:
        self._hosts = hosts
        self._cookies = cookies
        self._logins = logins
        self._registry = registry

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        """200 with X-Upstream; 401 or a redirect to the login page, 403, 404 (contract.md section 5)."""
        hosts = request.headers.getall("Host", ())
        slug = self._hosts.session_slug(hosts[0]) if len(hosts) == 1 else None
        if slug is None:
            raise session_not_found()
        principal = await self._logins.identify(self._cookies.tokens(request))
        if principal is None:
            if _is_navigation(request):
                return web.Response(status=302, headers={"Location": self._hosts.login_url(slug, _target(request))})
            raise not_signed_in()
        session = self._registry.by_slug(slug)
        if session is None:
            if not self._registry.known:
                return self._refuse(request, slug, UNKNOWN, not_yet_known())
            return self._refuse(request, slug, MISSING, session_not_found())
        if session.user_id != principal.user_id and not principal.is_admin:
            return self._refuse(request, slug, DENIED, access_denied())
        if session.status is not SessionStatus.RUNNING:
            page = STARTING if session.status is SessionStatus.STARTING else MISSING
            return self._refuse(request, slug, page, session_not_found())
        return web.Response(headers={"X-Upstream": upstream(slug)})

    def _refuse(self, request: web.Request, slug: str, page: Page, problem: Problem) -> web.StreamResponse:
        """A page for a person's browser, the problem for everybody else."""
        if _is_navigation(request):
            return page_response(page, self._hosts.site_url, self._hosts.session_url(slug, _target(request)))
        raise problem


def upstream(slug: str) -> str:
    """Where Caddy finds a session's IDE."""
    return f"mf-session-{slug}:{_IDE_PORT}"


def _target(request: web.Request) -> str:
    """Path and query that were asked for, as Caddy tells them."""
    return request.headers.get("X-Forwarded-Uri", "/")


def _is_navigation(request: web.Request) -> bool:
    """Whether a person's browser is opening a page, as told from a program or a page's own requests.

    Sec-Fetch-* cannot be set by scripts; browsers that do not send them are told by their wish for HTML.
    """
    headers = request.headers
    return (
        headers.get("X-Forwarded-Method", "GET") in ("GET", "HEAD")
        and "text/html" in headers.get("Accept", "")
        and headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
        and headers.get("Sec-Fetch-Dest", "document") == "document"
    )


def access_denied() -> Problem:
    return Problem(403, "Session access denied.")


def not_yet_known() -> Problem:
    return unavailable("Sessions are not known yet; try again in a few seconds.", 2)
