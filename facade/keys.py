"""Owns what the middleware attaches to a request, and the typed ways to read it."""

from __future__ import annotations

from aiohttp import web

from facade.auth.principals import Principal

__all__ = ["principal_of", "request_id_of", "set_principal", "set_request_id", "signed_in"]

_REQUEST_ID = web.RequestKey("request_id", str)
_PRINCIPAL = web.RequestKey("principal", Principal)


def set_request_id(request: web.BaseRequest, request_id: str) -> None:
    request[_REQUEST_ID] = request_id


def request_id_of(request: web.BaseRequest) -> str:
    """The correlation id of everything that this request causes."""
    return request[_REQUEST_ID]


def set_principal(request: web.Request, principal: Principal) -> None:
    request[_PRINCIPAL] = principal


def signed_in(request: web.Request) -> Principal | None:
    """Who has asked, where that was looked at."""
    return request.get(_PRINCIPAL)


def principal_of(request: web.Request) -> Principal:
    """Who is asking; only for routes that the table gives to signed-in callers."""
    return request[_PRINCIPAL]
