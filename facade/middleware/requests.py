"""Owns what every request and answer has: an id, one form for every error, strict headers, a line in the log."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from facade.auth.addresses import Addresses
from facade.keys import set_request_id, signed_in
from facade.metrics.tally import METHODS, OTHER, Tally
from facade.middleware.headers import be_strict
from facade.problems import Problem, database_unavailable, not_found, problem_response, too_large, unexpected
from facade.sessions.proxy import SESSION_PROXY_PATH
from facade.store.failures import DatabaseUnavailable

__all__ = ["REQUEST_ID_HEADER", "Requests", "finish", "problem_of_http", "request_id_for"]

REQUEST_ID_HEADER = "X-Request-ID"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Their good answers come several times a second and say nothing.
_QUIET = frozenset({SESSION_PROXY_PATH, "/healthz"})

_DETAILS = {
    405: "This method is not allowed here.",
    417: "This expectation cannot be met.",
}

_log = structlog.get_logger()


class Requests:
    """Outermost: nothing leaves without a request id, and no exception leaves at all; what is answered is counted."""

    def __init__(self, tally: Tally, addresses: Addresses) -> None:
        self._tally = tally
        self._addresses = addresses

    @property
    def middleware(self) -> Middleware:
        """For the application."""

        @web.middleware
        async def requests(request: web.Request, handler: Handler) -> web.StreamResponse:
            began = time.perf_counter()
            response = await _answer(request, handler)
            self._note(request, response, time.perf_counter() - began)
            return response

        return requests

    def _note(self, request: web.Request, response: web.StreamResponse, seconds: float) -> None:
        """Count it, and write its line. Of what a client has sent there is nothing in it but its address and its id."""
        route = _route(request)
        if route == SESSION_PROXY_PATH:
            self._tally.proxied[response.status] += 1
        else:
            self._tally.request(request.method, route, response.status, seconds)
        if route in _QUIET and response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return
        principal = signed_in(request)
        _log.info(
            "http.request",
            method=request.method if request.method in METHODS else OTHER,
            route=route,
            status=response.status,
            milliseconds=round(seconds * 1000, 1),
            bytes=response.content_length or 0,
            address=str(self._addresses.of(request)),
            user_id=str(principal.user_id) if principal else None,
            signed_in_by=None if principal is None else "cookie" if principal.scopes is None else "api_token",
        )


def _route(request: web.Request) -> str:
    """The template of the table that the request's path fits, never the path: that is the client's to choose."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else OTHER


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    request_id = request_id_for(request.headers)
    set_request_id(request, request_id)
    structlog.contextvars.bind_contextvars(correlation_id=request_id)
    try:
        response = await handler(request)
    except Problem as problem:
        response = problem_response(problem, instance=request.path, request_id=request_id)
    except web.HTTPException as error:
        response = problem_response(problem_of_http(error), instance=request.path, request_id=request_id)
    except DatabaseUnavailable as error:
        _log.warning("http.database_unavailable", route=_route(request), reason=str(error))
        response = problem_response(database_unavailable(), instance=request.path, request_id=request_id)
    except ConnectionError:
        raise  # the caller has gone: there is nobody to answer
    except Exception:  # noqa: BLE001  # the edge: told to the log in full and to the caller not at all
        _log.exception("http.failed", route=_route(request))
        response = problem_response(unexpected(), instance=request.path, request_id=request_id)
    finish(response, request_id)
    return response


def request_id_for(headers: Mapping[str, str]) -> str:
    """The caller's own id when it is well-formed, else a new one."""
    given = headers.get(REQUEST_ID_HEADER)
    return given if given is not None and _WELL_FORMED.fullmatch(given) else _new_id()


def _new_id() -> str:
    """A random UUID (RFC 9562, version 4). It is no secret, so that the kernel need not be asked each time."""
    number = random.getrandbits(128)
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[number & 3]}{digits[17:20]}-{digits[20:]}"


def finish(response: web.StreamResponse, request_id: str) -> None:
    """The headers of every answer; those that a handler has set stay."""
    headers = response.headers
    headers[REQUEST_ID_HEADER] = request_id
    headers["Server"] = "medforge"
    # Where Caddy is told an upstream, no browser sees the answer.
    if "X-Upstream" not in headers:
        be_strict(response)


def problem_of_http(error: web.HTTPException) -> Problem:
    """What aiohttp itself raises, in our form; of its headers only those that carry meaning."""
    if error.status == HTTPStatus.NOT_FOUND:
        return not_found()
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return too_large()
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    detail = _DETAILS.get(error.status) or f"{HTTPStatus(error.status).phrase}."
    return Problem(error.status, detail, headers=headers)
