"""Owns a route's parameters and request body as the OpenAPI document tells them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from facade.routing import Route

__all__ = ["path_parameters", "path_types", "query_parameters", "request_body"]

# A type's schema, in which other types are references.
SchemaOf = Callable[[Any], dict[str, Any]]

_PATH_TYPES: dict[str, Any] = {"id": UUID}


def path_parameters(route: Route, schema_of: SchemaOf) -> list[dict[str, Any]]:
    """One for each `{name}` of the path."""
    return [
        {"name": name, "in": "path", "required": True, "schema": schema_of(kind)}
        for name, kind in path_types(route).items()
    ]


def path_types(route: Route) -> dict[str, Any]:
    """What each `{name}` of the path stands for."""
    return {name: _PATH_TYPES.get(name, str) for name in re.findall(r"{(\w+)}", route.path)}


def query_parameters(route: Route, schema_of: SchemaOf) -> list[dict[str, Any]]:
    """One for each field of the query's type. Lists may be repeated; null cannot be told in a query."""
    if route.query is None:
        return []
    found = []
    for field in msgspec.structs.fields(route.query):
        schema = _without_null(schema_of(field.type))
        if field.default is not msgspec.NODEFAULT and field.default is not None:
            schema["default"] = msgspec.to_builtins(field.default)
        parameter: dict[str, Any] = {"name": field.encode_name, "in": "query", "required": field.required}
        if described := schema.pop("description", None):
            parameter["description"] = described
        if schema.get("type") == "array":
            parameter |= {"style": "form", "explode": True}
        found.append(parameter | {"schema": schema})
    return found


def request_body(route: Route, schema_of: SchemaOf) -> dict[str, Any] | None:
    """The body; one whose fields may all be left out may be left out itself."""
    if route.body is None:
        return None
    required = any(field.required for field in msgspec.structs.fields(route.body))
    return {"required": required, "content": {"application/json": {"schema": schema_of(route.body)}}}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    parts = [part for part in schema.get("anyOf", []) if part != {"type": "null"}]
    if len(parts) != 1:
        return dict(schema)
    return {**{key: value for key, value in schema.items() if key != "anyOf"}, **parts[0]}
