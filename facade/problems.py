"""Owns every error that the API answers with: RFC 9457 problem documents, their types, titles and codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

__all__ = [
    "Document",
    "FieldError",
    "Problem",
    "not_found",
    "not_signed_in",
    "problem_response",
    "unavailable",
    "validation",
]

_BASE = "https://medforge.dev/problems/"

# Types other than http/<status>: title, and code where it is not the last part of the type.
_TITLES = {
    "validation/request": "Request Validation Failed",
    "pagination/invalid-limit": "Invalid Limit",
    "pagination/invalid-cursor": "Invalid Cursor",
    "competitions/admin-access-denied": "Admin Access Denied",
}
_CODES = {"validation/request": "request_validation_failed"}


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a request: where it stands, what is wrong, and its kind for programs."""

    loc: list[str]
    msg: str
    type: str


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON of an error."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldError] | None = None


class Problem(Exception):
    """Raised by whoever finds it, answered by the middleware. `detail` is shown to the caller as it is."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        type_: str | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.type = type_ or f"http/{status}"
        self.errors = list(errors)
        self.headers = dict(headers or {})

    @property
    def title(self) -> str:
        return _TITLES.get(self.type) or HTTPStatus(self.status).phrase

    @property
    def code(self) -> str:
        return _CODES.get(self.type) or self.type.rpartition("/")[2].replace("-", "_")


def problem_response(problem: Problem, *, instance: str, request_id: str) -> web.Response:
    """The problem as an answer; `instance` is the path that was asked for, without its query."""
    document = Document(
        type=_BASE + problem.type,
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        instance=instance,
        code=problem.code,
        request_id=request_id,
        errors=problem.errors or None,
    )
    return web.Response(
        body=msgspec.json.encode(document),
        status=problem.status,
        headers=problem.headers,
        content_type="application/problem+json",
    )


def not_signed_in() -> Problem:
    return Problem(401, "Authentication required.")


def not_found(detail: str = "Resource not found.") -> Problem:
    return Problem(404, detail)


def unavailable(detail: str, retry_after_seconds: int) -> Problem:
    return Problem(503, detail, headers={"Retry-After": str(retry_after_seconds)})


def validation(*errors: tuple[Sequence[str], str, str]) -> Problem:
    """A request that is not what the endpoint takes; each error is (location, message, kind)."""
    told: list[Any] = [FieldError(loc=list(loc), msg=msg, type=kind) for loc, msg, kind in errors]
    return Problem(422, "Request validation failed.", type_="validation/request", errors=told)
