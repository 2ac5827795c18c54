"""Owns turning a request's body into the type that its endpoint takes, or into a problem that names what is wrong."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from aiohttp import web

from facade.problems import Problem, validation

__all__ = ["Empty", "compressed", "invalid_json", "not_json", "read_body"]

T = TypeVar("T", bound=msgspec.Struct)

_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_FIELD = re.compile(r"^Object (?P<what>missing required|contains unknown) field `(?P<name>[^`]*)`")


class Empty(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint that takes nothing; `{}` or no body at all."""


async def read_body(request: web.Request, type_: type[T]) -> T:
    """The body, decoded and checked; no body counts as `{}`. Raises Problem 413, 415 or 422."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise compressed()
    raw = await request.read()
    if raw and request.content_type != "application/json":
        raise not_json()
    try:
        return msgspec.json.decode(raw or b"{}", type=type_)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_json() from error


def compressed() -> Problem:
    return Problem(415, "Request bodies must not be compressed.", headers={"Accept-Encoding": "identity"})


def not_json() -> Problem:
    return Problem(415, "Request bodies must be application/json.", headers={"Accept": "application/json"})


def invalid_json() -> Problem:
    return validation((["body"], "The body is not valid JSON.", "json_invalid"))


def _explained(message: str) -> Problem:
    """The library's one sentence, taken apart into location, message and kind."""
    found = _PATH.search(message)
    location = ["body", *(part for part in re.split(r"[.\[\]]+", found["path"] if found else "") if part)]
    told = _PATH.sub("", message)
    kind = "value_error"
    if field := _FIELD.match(told):
        location.append(field["name"])
        missing = field["what"].startswith("missing")
        kind, told = ("missing", "Field required.") if missing else ("extra_forbidden", "Unknown field.")
    elif told.startswith("Expected `"):
        kind = "type_error"
    return validation((location, told, kind))
