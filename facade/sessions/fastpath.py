"""Owns the fast path of session-proxy: the good answer to a plain question, made from the request's head alone.

Nearly every request of an open IDE asks the same: one cookie, one session that runs, one owner. That is answered here
without a request object, a task or a route. Whatever is not that plain gets None, and `facade.sessions.proxy` decides;
so what is answered here would be answered there in the same bytes, and nothing is refused here.
"""

from __future__ import annotations

from typing import Protocol

from aiohttp import hdrs, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion, HttpVersion11
from multidict import CIMultiDictProxy

from facade.auth.cookies import plain_token
from facade.auth.logins import Logins
from facade.hosts import Hosts
from facade.metrics.tally import Tally
from facade.middleware.requests import REQUEST_ID_HEADER, finish, request_id_for
from facade.sessions.proxy import SESSION_PROXY_PATH, upstream
from facade.sessions.registry import Registry
from medforged.contract.sessions import SessionStatus

__all__ = ["FastPath", "Head"]

_UPSTREAM = "X-Upstream"
_LAST = "Connection: close\r\n"


class Head(Protocol):
    """A request's head as aiohttp's parser yields it."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def version(self) -> HttpVersion: ...
    @property
    def headers(self) -> CIMultiDictProxy[str]: ...
    @property
    def upgrade(self) -> bool: ...
    @property
    def should_close(self) -> bool: ...


class FastPath:
    """Decides as `SessionProxy` does, with the same knowledge."""

    def __init__(self, hosts: Hosts, logins: Logins, registry: Registry, tally: Tally) -> None:
        self._hosts = hosts
        self._logins = logins
        self._registry = registry
        self._tally = tally
        self._fixed = _fixed_headers()

    def answer(self, head: Head, *, last: bool) -> bytes | None:
        """The whole answer of a request that has no body; `last` announces that the connection ends with it."""
        if head.path != SESSION_PROXY_PATH or head.method != "GET" or head.upgrade or head.version != HttpVersion11:
            return None
        headers = head.headers
        hosts = headers.getall(hdrs.HOST, ())
        if len(hosts) != 1 or hdrs.EXPECT in headers:
            return None
        slug = self._hosts.plain_slug(hosts[0])
        session = self._registry.by_slug(slug) if slug is not None else None
        if session is None or session.status is not SessionStatus.RUNNING:
            return None
        token = plain_token(headers)
        principal = self._logins.recall(token) if token is not None else None
        if principal is None or (session.user_id != principal.user_id and not principal.is_admin):
            return None
        self._tally.granted += 1
        return (
            f"HTTP/1.1 200 OK\r\n{_UPSTREAM}: {upstream(session.slug)}\r\n"
            f"{REQUEST_ID_HEADER}: {request_id_for(headers)}\r\n{self._fixed}"
            f"Date: {rfc822_formatted_time()}\r\n{_LAST if last else ''}\r\n"
        ).encode("latin-1")


def _fixed_headers() -> str:
    """What follows the request's id in such an answer: the middleware's headers, and an empty body's length."""
    response = web.Response(headers={_UPSTREAM: ""})
    finish(response, "")
    told = [(name, value) for name, value in response.headers.items() if name not in (_UPSTREAM, REQUEST_ID_HEADER)]
    return "".join(f"{name}: {value}\r\n" for name, value in [*told, ("Content-Length", "0")])
