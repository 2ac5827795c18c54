"""Owns docs/reference/http-routes.md."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest.mock import Mock

import msgspec

from facade.openapi.entailed import problems
from facade.routes import Handlers, table
from facade.routing import Route
from ops.reference import markdown
from ops.reference.markdown import code, document

_INTRODUCTION = """
Each route in one line, as `facade/routes.py` states it. The whole of it, with types, headers and examples, is the
OpenAPI document that every installation serves at `/api/v1/openapi.json` and shows at `/docs`; what the parts mean is
told in [the public HTTP API](http-api.md).
"""
# So common that they would hide the others.
_EVERYWHERE = {400, 404, 413, 415, 417, 422, 500}


def page() -> str:
    """The page, whole."""
    routes = table(Handlers(**{field.name: Mock() for field in dataclasses.fields(Handlers)}))
    return document(
        "# Routes of the public HTTP API",
        _INTRODUCTION,
        markdown.table(
            ["route", "what it does", "who may call", "scope", "changes", "body", "query", "answers"],
            [_row(route) for route in routes],
        ),
        "`GET` answers `HEAD` too, and every path answers `OPTIONS`. A route that changes something refuses requests "
        "of foreign origins. Without a scope no API token may call. Left out of the last column is what nearly every "
        "route can answer: " + ", ".join(map(str, sorted(_EVERYWHERE))) + ".",
    )


def _row(route: Route) -> list[str]:
    refused = {problem.status for problem in problems(route)} - _EVERYWHERE
    return [
        code(f"{route.verb} {route.path}"),
        route.summary,
        route.who.value,
        code(route.scope.value) if route.scope else "",
        "yes" if route.changes else "no",
        _fields(route.body),
        _fields(route.query),
        ", ".join(str(status) for status in sorted({*route.answers, *refused})),
    ]


def _fields(type_: Any) -> str:
    """The names that it takes; those that may be left out are told by a question mark."""
    if type_ is None:
        return ""
    fields = msgspec.structs.fields(type_)
    return ", ".join(code(field.encode_name + ("" if field.required else "?")) for field in fields)
