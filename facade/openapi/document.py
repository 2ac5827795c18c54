"""Owns the OpenAPI 3.1 document: made once, of the route table and of the types that its handlers read and answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from facade.auth.cookies import COOKIE_NAME
from facade.auth.principals import Scope
from facade.envelope import API_VERSION, Meta
from facade.middleware.access import Who
from facade.openapi.parameters import path_parameters, path_types, query_parameters, request_body
from facade.openapi.responses import HEADER_NAMES, header, responses
from facade.problems import ProblemDocument
from facade.routing import Route

__all__ = ["document"]

_REFERENCE = "#/components/schemas/{name}"
_DESCRIPTION = """\
Success is `{"data": …, "meta": …}`, every error `application/problem+json` (RFC 9457). Bodies are JSON, not
compressed; unknown fields are an error, and no body counts as `{}`. Every `GET` answers `HEAD` too, every path
`OPTIONS`. Times are RFC 3339 in UTC, ids are UUIDs.

Browsers are known by the cookie that signing in sets. Where a request changes something, an `Origin` header must be the
site's own. Scripts use an API token: `Authorization: Bearer …`.
"""
_TAGS = {
    "auth": "Signing up, in and out",
    "me": "One's own account",
    "sessions": "Browser IDEs on a GPU of one's own",
    "admin": "For admins",
    "site": "The installation itself",
}
_SECURITY_SCHEMES = {
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE_NAME,
        "description": "Set by signing up and in; `HttpOnly`, so that browsers send it and scripts never see it.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token. What it may do is limited by its scopes: " + ", ".join(f"`{s}`" for s in Scope),
    },
}


def document(routes: Iterable[Route], *, version: str) -> dict[str, Any]:
    """The whole document, in plain dicts and lists that can be encoded as JSON."""
    routes = tuple(routes)
    types = list({repr(kind): kind for route in routes for kind in _types(route)}.values())
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_type = {repr(kind): schema for kind, schema in zip(types, schemas, strict=True)}

    def schema_of(kind: Any) -> dict[str, Any]:
        return dict(by_type[repr(kind)])

    paths: dict[str, Any] = {}
    for route in routes:
        item = paths.setdefault(route.path, {})
        if parameters := path_parameters(route, schema_of):
            item["parameters"] = parameters
        item[route.verb.lower()] = _operation(route, schema_of)
    used = dict.fromkeys(_tag(route) for route in routes)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": "MedForge",
            "summary": f"The public HTTP API, {API_VERSION}.",
            "description": _DESCRIPTION,
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The host that serves this document."}],
        "tags": [{"name": tag, "description": _TAGS.get(tag, tag)} for tag in used],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "headers": {name: header(name) for name in HEADER_NAMES},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _operation(route: Route, schema_of: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "tags": [_tag(route)],
        "summary": route.summary,
        "description": _who(route),
        "security": _security(route),
    }
    if parameters := query_parameters(route, schema_of):
        operation["parameters"] = parameters
    if body := request_body(route, schema_of):
        operation["requestBody"] = body
    return {**operation, "responses": responses(route, schema_of)}


def _types(route: Route) -> Iterator[Any]:
    """Every type whose schema the route's entry needs."""
    yield from (str, ProblemDocument, Meta)
    yield from path_types(route).values()
    if route.body is not None:
        yield route.body
    if route.query is not None:
        yield from (field.type for field in msgspec.structs.fields(route.query))
    yield from (route.answer(status).type for status in route.answers if route.answer(status).type is not None)


def _who(route: Route) -> str:
    if route.scope:
        return f"Who may call: {route.who.value}; an API token needs the scope `{route.scope}`."
    tokens = " API tokens may not." if route.who in (Who.SIGNED_IN, Who.ADMIN) else ""
    return f"Who may call: {route.who.value}.{tokens}"


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.who is Who.ANYONE:
        return []
    bearer = [{"bearer": [route.scope.value]}] if route.scope else []
    return [{"cookie": []}, *bearer]


def _tag(route: Route) -> str:
    head, _, rest = route.path.removeprefix("/").partition("/v1/")
    return rest.partition("/")[0] if head == "api" and not rest.endswith(".json") else "site"


def _operation_id(route: Route) -> str:
    path = route.path.removeprefix("/api/v1").replace("{", "").replace("}", "")
    words = [word for part in path.split("/") for word in part.replace(".", "-").split("-") if word]
    return "_".join([route.verb.lower(), *words])
