"""Owns the `medforge_session` cookie: reading every one that a request carries, setting it and clearing it."""

from __future__ import annotations

import re

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

from facade.auth.tokens import TOKEN_LENGTH, TOKEN_PATTERN

__all__ = ["COOKIE_NAME", "Cookies", "plain_token"]

COOKIE_NAME = "medforge_session"
# More than fit into one header of the largest size that is accepted (64 KiB).
_MAX_TOKENS = 1200
_BEFORE = f"{COOKIE_NAME}="
_TOKENS = re.compile(rf"(?:^|;)[ \t]*{COOKIE_NAME}=({TOKEN_PATTERN})(?=[ \t]*(?:;|$))")


class Cookies:
    """Sets cookies that reach every host of the site and no script (contract.md section 4)."""

    def __init__(self, domain: str, *, secure: bool, max_age_seconds: int) -> None:
        self._domain = domain
        self._secure = secure
        self._max_age = max_age_seconds

    def tokens(self, request: web.BaseRequest) -> tuple[str, ...]:
        """Every distinct token that the request carries, in its order.

        A page on a session's host can set further cookies of this name with a longer path or another domain,
        and a browser then sends them all, the tossed one first. So all are returned, for the caller to judge.
        """
        found: dict[str, None] = {}
        for header in request.headers.getall("Cookie", ()):
            found.update(dict.fromkeys(_TOKENS.findall(header)))
        return tuple(found) if len(found) <= _MAX_TOKENS else ()

    def set(self, response: web.StreamResponse, token: str) -> None:
        response.set_cookie(
            COOKIE_NAME,
            token,
            max_age=self._max_age,
            domain=self._domain,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="Lax",
        )

    def clear(self, response: web.StreamResponse) -> None:
        response.set_cookie(
            COOKIE_NAME,
            "",
            max_age=0,
            domain=self._domain,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="Lax",
        )


def plain_token(headers: CIMultiDictProxy[str]) -> str | None:
    """The one token of a request that plainly has one, as browsers write it; None leaves it to `Cookies.tokens`.

    For callers that look its digest up among those of tokens: its alphabet is not checked.
    """
    lines = headers.getall(hdrs.COOKIE, ())
    if len(lines) != 1:
        return None
    line = lines[0]
    before = line.find(_BEFORE)
    begin = before + len(_BEFORE)
    end = begin + TOKEN_LENGTH
    if before < 0 or len(line) < end or line.find(_BEFORE, begin) >= 0:
        return None
    if (before > 0 and line[before - 2 : before] != "; ") or (len(line) > end and line[end] != ";"):
        return None
    token = line[begin:end]
    return token if token.isascii() else None
