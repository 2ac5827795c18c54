"""Owns a route's answers as the OpenAPI document tells them: bodies, headers, and an example of every problem."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec

from facade.envelope import Meta
from facade.openapi.entailed import problems
from facade.problems import MEDIA_TYPE, Problem, ProblemDocument
from facade.routing import Answer, Route

__all__ = ["EXAMPLE_REQUEST_ID", "HEADER_NAMES", "header", "responses"]

SchemaOf = Callable[[Any], dict[str, Any]]

EXAMPLE_REQUEST_ID = "42ff3db4-c982-4ea5-a970-e2f48925f07a"

# Every header that an answer of the API can have and that says something about it.
_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Request-ID": (
        "The request's own id where it was well-formed, else a new one. Everything that it causes is logged under it.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$", "examples": [EXAMPLE_REQUEST_ID]},
    ),
    "Retry-After": ("Seconds after which trying again makes sense.", {"type": "integer", "minimum": 0}),
    "WWW-Authenticate": (
        "What is missing: RFC 9110 section 11.6.1, RFC 6750 section 3.",
        {"type": "string", "examples": ['Bearer realm="medforge"']},
    ),
    "Set-Cookie": (
        "The cookie `medforge_session`, set or removed; signing in also renews what the browser is known by.",
        {"type": "string"},
    ),
    "Allow": ("The methods that the path knows.", {"type": "string", "examples": ["GET,HEAD,OPTIONS"]}),
    "Accept": ("The media type that a body must have.", {"type": "string", "const": "application/json"}),
    "Accept-Encoding": ("The coding that a body must have.", {"type": "string", "const": "identity"}),
    "ETag": ("For `If-None-Match`.", {"type": "string", "pattern": '^"[0-9a-f]{32}"$'}),
    "Location": ("Where to go instead.", {"type": "string", "format": "uri"}),
    "X-Upstream": (
        "Name and port of the session's container.",
        {"type": "string", "pattern": "^mf-session-[a-z2-7]{8}:8080$"},
    ),
}
HEADER_NAMES = tuple(_HEADERS)
_EVERYWHERE = {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}}


def responses(route: Route, schema_of: SchemaOf) -> dict[str, Any]:
    """By status, in its order. A status can be a good answer and a problem, told apart by their media types."""
    told = {status: _good(route.answer(status), status, schema_of) for status in route.answers}
    by_status: dict[int, list[Problem]] = {}
    for problem in problems(route):
        by_status.setdefault(problem.status, []).append(problem)
    for status, same in by_status.items():
        bad = _bad(same, route.path, schema_of)
        good = told.get(status, {})
        told[status] = {**bad, **good, "content": {**good.get("content", {}), **bad["content"]}}
    return {str(status): told[status] for status in sorted(told)}


def _good(answer: Answer, status: int, schema_of: SchemaOf) -> dict[str, Any]:
    headers = {name: {**header(name), "required": True} for name in answer.headers}
    told: dict[str, Any] = {"description": HTTPStatus(status).phrase, "headers": {**_EVERYWHERE, **headers}}
    if answer.type is None:
        return told
    schema = schema_of(answer.type)
    if answer.enveloped:
        meta = schema_of(Meta)
        schema = {"type": "object", "required": ["data", "meta"], "properties": {"data": schema, "meta": meta}}
    return {**told, "content": {answer.media: {"schema": schema}}}


def _bad(same: list[Problem], path: str, schema_of: SchemaOf) -> dict[str, Any]:
    """All problems of one status: what each says, and how it looks."""
    examples = {}
    for number, problem in enumerate(same, start=1):
        document = problem.document(instance=path, request_id=EXAMPLE_REQUEST_ID)
        examples[f"{problem.code}-{number}" if len(same) > 1 else problem.code] = {
            "summary": problem.errors[0].msg if problem.errors else problem.detail,
            "value": msgspec.to_builtins(document),
        }
    names = sorted({name for problem in same for name in problem.headers})
    return {
        "description": " · ".join(dict.fromkeys(problem.detail for problem in same)),
        "headers": {**_EVERYWHERE, **{name: {"$ref": f"#/components/headers/{name}"} for name in names}},
        "content": {MEDIA_TYPE: {"schema": schema_of(ProblemDocument), "examples": examples}},
    }


def header(name: str) -> dict[str, Any]:
    """The header as the document describes it."""
    described, schema = _HEADERS[name]
    return {"description": described, "schema": schema}
