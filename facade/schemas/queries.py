"""Owns turning a request's query into the type that its endpoint takes, or into a problem that names what is wrong."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web

from facade.problems import Problem, validation
from facade.schemas.paging import invalid_cursor, invalid_limit

__all__ = ["read_query"]

Q = TypeVar("Q", bound=msgspec.Struct)

# These have problem types of their own (contract.md section 4).
_OWN_PROBLEMS = {"limit": invalid_limit, "cursor": invalid_cursor}


def read_query(request: web.Request, type_: type[Q]) -> Q:
    """The query, decoded and checked. Raises Problem 400 for limit and cursor, 422 for everything else.

    A field that is a list is given repeatedly or separated by commas, others once at most. Names that the endpoint
    does not know are refused, so that a filter with a slip in it does not list everything.
    """
    known = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    if unknown := [name for name in dict.fromkeys(request.query) if name not in known]:
        raise validation(*((["query", name], "Unknown parameter.", "extra_forbidden") for name in unknown))
    values: dict[str, Any] = {}
    for name, field in known.items():
        if given := request.query.getall(name, []):
            values[field.name] = _value(name, given, field.type)
    return type_(**values)


def _value(name: str, given: list[str], kind: Any) -> Any:
    kind = _without_null(kind)
    bare = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    several = typing.get_origin(bare) is list
    if len(given) > 1 and not several:
        raise _refused(name, "Given more than once.")
    raw: Any = [part for text in given for part in text.split(",") if part] if several else given[0]
    try:
        # Numbers are digits alone: what else msgspec would take for one ("1e2") nobody means.
        strict = isinstance(raw, str) and not (raw.isascii() and (raw.isdigit() or raw.isalpha()))
        found = msgspec.convert(raw, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise _refused(name, str(error).partition(" - at ")[0] + ".") from error
    return list(dict.fromkeys(found)) if several else found


def _refused(name: str, told: str) -> Problem:
    own = _OWN_PROBLEMS.get(name)
    return own() if own else validation((["query", name], told, "value_error"))


def _without_null(kind: Any) -> Any:
    """There is no null in a query: what may be left out is left out."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.Union[tuple(part for part in typing.get_args(kind) if part is not type(None))]  # noqa: UP007  # made of parts
    return kind
