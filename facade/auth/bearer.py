"""Owns `Authorization: Bearer`: reading an API token from a request, and how one is refused (RFC 6750)."""

from __future__ import annotations

import re

from aiohttp import web

from facade.auth.principals import Scope
from facade.auth.tokens import API_TOKEN_PATTERN
from facade.problems import Problem

__all__ = ["bearer_of", "insufficient_scope", "invalid_token"]

_SCHEME = re.compile(r"bearer(?: |$)", re.IGNORECASE)
_BEARER = re.compile(rf"bearer +({API_TOKEN_PATTERN})", re.IGNORECASE)


def bearer_of(request: web.BaseRequest) -> str | None:
    """The token that the request carries; None where it carries none and its cookie is to be looked at.

    A token anywhere else, in the query or in a body, is none: addresses end up in logs and histories. Raises Problem
    401 for what claims to be a token and cannot be one.
    """
    headers = [header.strip() for header in request.headers.getall("Authorization", ())]
    if not any(_SCHEME.match(header) for header in headers):
        return None
    found = _BEARER.fullmatch(headers[0]) if len(headers) == 1 else None
    if found is None:
        raise invalid_token()
    return found[1]


def invalid_token() -> Problem:
    return Problem(401, "The API token is not valid.", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def insufficient_scope(needed: Scope | None) -> Problem:
    """`needed` is None for what no API token may do."""
    if needed is None:
        detail, challenge = "API tokens cannot be used here.", 'Bearer error="insufficient_scope"'
    else:
        detail = f"The API token lacks the scope {needed.value}."
        challenge = f'Bearer error="insufficient_scope", scope="{needed.value}"'
    return Problem(403, detail, headers={"WWW-Authenticate": challenge})
