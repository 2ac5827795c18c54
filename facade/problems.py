"""Owns every error that the API answers with: RFC 9457 problem documents, their types, titles and codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

__all__ = [
    "CHALLENGE",
    "MEDIA_TYPE",
    "FieldError",
    "Problem",
    "ProblemDocument",
    "admins_only",
    "database_unavailable",
    "malformed",
    "not_found",
    "not_signed_in",
    "origin_refused",
    "problem_response",
    "rate_limited",
    "too_large",
    "too_slow",
    "unavailable",
    "unexpected",
    "validation",
]

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="medforge"'
_BASE = "https://medforge.dev/problems/"

# A restart of the database's server takes about so long.
_DATABASE_RETRY_SECONDS = 5

# Where the status does not say it: title, and code where it is not the last part of the type.
_TITLES = {
    "http/413": "Content Too Large",  # RFC 9110's name; Python's is another in every second release
    "validation/request": "Request Validation Failed",
    "rate-limit/exceeded": "Rate Limit Exceeded",
    "pagination/invalid-limit": "Invalid Limit",
    "pagination/invalid-cursor": "Invalid Cursor",
    "competitions/admin-access-denied": "Admin Access Denied",
}
_CODES = {"validation/request": "request_validation_failed", "rate-limit/exceeded": "rate_limit_exceeded"}


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a request: where it stands, what is wrong, and its kind for programs."""

    loc: list[str]
    msg: str
    type: str


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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
        # RFC 9110 section 15.5.2 asks for a challenge. Cookies have none; for this one no browser asks anybody.
        self.headers = {**({"WWW-Authenticate": CHALLENGE} if status == 401 else {}), **(headers or {})}

    @property
    def title(self) -> str:
        return _TITLES.get(self.type) or HTTPStatus(self.status).phrase

    @property
    def code(self) -> str:
        return _CODES.get(self.type) or self.type.rpartition("/")[2].replace("-", "_")

    def document(self, *, instance: str, request_id: str) -> ProblemDocument:
        """Its JSON; `instance` is the path that was asked for, without its query."""
        return ProblemDocument(
            type=_BASE + self.type,
            title=self.title,
            status=self.status,
            detail=self.detail,
            instance=instance,
            code=self.code,
            request_id=request_id,
            errors=self.errors or None,
        )


def problem_response(problem: Problem, *, instance: str, request_id: str) -> web.Response:
    """The problem as an answer."""
    document = problem.document(instance=instance, request_id=request_id)
    return web.Response(
        body=msgspec.json.encode(document), status=problem.status, headers=problem.headers, content_type=MEDIA_TYPE
    )


def not_signed_in() -> Problem:
    return Problem(401, "Authentication required.")


def not_found(detail: str = "Resource not found.") -> Problem:
    return Problem(404, detail)


def origin_refused() -> Problem:
    return Problem(403, "Request origin is not allowed.")


def admins_only() -> Problem:
    return Problem(403, "Admin access required.", type_="competitions/admin-access-denied")


def malformed() -> Problem:
    """What is not HTTP at all, or breaks off."""
    return Problem(400, "The request is not valid HTTP.")


def too_large() -> Problem:
    return Problem(413, "The request body is too large.")


def too_slow() -> Problem:
    """The body is not complete after `listen.body_seconds`."""
    return Problem(408, "The request body takes too long.")


def unexpected() -> Problem:
    """A defect of ours, whose cause is for the log alone."""
    return Problem(500, "An unexpected error occurred.")


def unavailable(detail: str, retry_after_seconds: int) -> Problem:
    return Problem(503, detail, headers={"Retry-After": str(retry_after_seconds)})


def rate_limited(retry_after_seconds: int = 1) -> Problem:
    """Tried too often; says the same whatever the limit, so that nothing can be learnt from it."""
    return Problem(
        429,
        "Too many attempts; try again later.",
        type_="rate-limit/exceeded",
        headers={"Retry-After": str(retry_after_seconds)},
    )


def database_unavailable() -> Problem:
    """The cause is for the log alone."""
    return unavailable("The facade's database does not answer.", _DATABASE_RETRY_SECONDS)


def validation(*errors: tuple[Sequence[str], str, str]) -> Problem:
    """A request that is not what the endpoint takes; each error is (location, message, kind)."""
    told: list[Any] = [FieldError(loc=list(loc), msg=msg, type=kind) for loc, msg, kind in errors]
    return Problem(422, "Request validation failed.", type_="validation/request", errors=told)
