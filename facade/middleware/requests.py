"""Owns what every request and answer has: an id, one form for every error, strict headers, a line in the log."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from facade.keys import set_request_id
from facade.problems import Problem, database_unavailable, not_found, problem_response, too_large, unexpected
from facade.store.failures import DatabaseUnavailable

__all__ = ["REQUEST_ID_HEADER", "finish", "problem_of_http", "request_id_for", "requests"]

REQUEST_ID_HEADER = "X-Request-ID"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Their good answers come several times a second and say nothing.
_QUIET_PATHS = frozenset({"/api/v1/auth/session-proxy", "/healthz"})

_DETAILS = {
    405: "This method is not allowed here.",
    417: "This expectation cannot be met.",
}

_log = structlog.get_logger()


@web.middleware
async def requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Outermost: nothing leaves without a request id, and no exception leaves at all."""
    began = time.perf_counter()
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
        _log.warning("http.database_unavailable", method=request.method, path=request.path, reason=str(error))
        response = problem_response(database_unavailable(), instance=request.path, request_id=request_id)
    except ConnectionError:
        raise  # the caller has gone: there is nobody to answer
    except Exception:  # noqa: BLE001  # the edge: told to the log in full and to the caller not at all
        _log.exception("http.failed", method=request.method, path=request.path)
        response = problem_response(unexpected(), instance=request.path, request_id=request_id)
    finish(response, request_id)
    if request.path not in _QUIET_PATHS or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.info(
            "http.request",
            method=request.method,
            path=request.path,
            status=response.status,
            milliseconds=round((time.perf_counter() - began) * 1000, 1),
        )
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
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


def problem_of_http(error: web.HTTPException) -> Problem:
    """What aiohttp itself raises, in our form; of its headers only those that carry meaning."""
    if error.status == HTTPStatus.NOT_FOUND:
        return not_found()
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return too_large()
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    detail = _DETAILS.get(error.status) or f"{HTTPStatus(error.status).phrase}."
    return Problem(error.status, detail, headers=headers)
