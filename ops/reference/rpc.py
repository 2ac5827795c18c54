"""Owns docs/reference/rpc.md."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import msgspec
import msgspec.inspect as mi

from medforged.contract import watch
from medforged.contract.errors import HTTP_STATUS, ErrorBody, ErrorCode
from medforged.contract.methods import CORRELATION_HEADER, METHODS, WATCH_ACCESS, WATCH_PATH, Access, Method
from ops.reference.describe import describe
from ops.reference.markdown import anchor, code, document, table
from ops.reference.source import attribute_docs, class_doc

_EVENTS: tuple[type[msgspec.Struct], ...] = (watch.SessionChanged, watch.Synced, watch.Heartbeat)

_INTRODUCTION = f"""
The daemon answers HTTP/1.1 on its Unix socket. A method is called by `POST /v1/<method>` with its parameters as a JSON
object (`{{}}` where it takes none) and answers 200 with its result as a JSON object. Every other answer has the form of
[ErrorBody](#errorbody). Unknown parameters are refused; unknown fields of results are to be ignored.

```sh
curl --unix-socket /run/medforge/medforged.sock -d '{{"limit": 10}}' http://medforged/v1/sessions.list
```

A caller may send `{CORRELATION_HEADER}` (up to 128 letters, digits, `.`, `_`, `-`); everything that the daemon writes
to its journal about the call carries it. Times are RFC 3339 in UTC.
"""


def page() -> str:
    """The page, whole."""
    levels, codes = attribute_docs(Access), attribute_docs(ErrorCode)
    return document(
        "# The daemon's socket",
        _INTRODUCTION,
        "## Who may call",
        "The kernel says who has connected; nothing that a caller sends changes it. Each level includes the ones "
        "above it in this list.",
        table(["level", "who"], [[level.name.lower(), levels[level.name]] for level in Access if level]),
        "## Methods",
        table(
            ["method", "who may call", "audited", "what it does"],
            [
                [
                    f"[{code(m.name)}](#{anchor(_heading(m))})",
                    m.access.name.lower(),
                    "yes" if m.audited else "no",
                    m.summary,
                ]
                for m in METHODS
            ],
        ),
        "An audited call is told to the journal with the caller's user and process id.",
        *(block for method in METHODS for block in _method(method)),
        "## The watch stream",
        f"`GET {WATCH_PATH}` may be read at level {WATCH_ACCESS.name.lower()}.",
        (watch.__doc__ or "")
        .partition("\n\n")[2]
        .replace("`HEARTBEAT_SECONDS`", f"{watch.HEARTBEAT_SECONDS:g} seconds"),
        *(block for event in _EVENTS for block in _struct(event)),
        "## Error codes",
        table(
            ["code", "HTTP status", "meaning"],
            [[code(c.value), str(HTTP_STATUS[c]), codes.get(c.name, "")] for c in ErrorCode],
        ),
        *_struct(ErrorBody),
        "## Types",
        *(block for cls in _mentioned() for block in (_struct(cls) if issubclass(cls, msgspec.Struct) else _enum(cls))),
    )


def _method(method: Method[Any, Any]) -> list[str]:
    info = mi.type_info(method.params)
    assert isinstance(info, mi.StructType)
    takes = (
        table(["parameter", "takes", "default"], [_parameter(field) for field in info.fields]) if info.fields else ""
    )
    doc = class_doc(method.params)
    answers = f"Answers {_mention(method.result)}."
    return [f"### {_heading(method)}", method.summary, doc, takes or "Takes no parameters.", answers]


def _heading(method: Method[Any, Any]) -> str:
    return f"POST /v1/{method.name}"


def _parameter(field: mi.Field) -> list[str]:
    default = "required" if field.required else code(_json(_default(field)))
    return [code(field.encode_name), describe(field.type, _mention), default]


def _default(field: mi.Field) -> object:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _struct(cls: type) -> list[str]:
    info = mi.type_info(cls)
    assert isinstance(info, mi.StructType)
    rows = [[code(field.encode_name), describe(field.type, _mention)] for field in info.fields]
    if info.tag is not None:
        rows.insert(0, [code(info.tag_field), code(_json(info.tag))])
    docs = attribute_docs(cls)
    if docs:
        rows = [[*row, docs.get(row[0].strip("`"), "")] for row in rows]
    return [f"### {cls.__name__}", class_doc(cls), table(["field", "type", *(["meaning"] if docs else [])], rows)]


def _enum(cls: type) -> list[str]:
    assert issubclass(cls, Enum)
    return [f"### {cls.__name__}", class_doc(cls), "One of " + ", ".join(code(member.value) for member in cls) + "."]


def _mention(cls: type) -> str:
    heading = "Error codes" if cls is ErrorCode else cls.__name__
    return f"[{cls.__name__}](#{anchor(heading)})"


def _mentioned() -> list[type]:
    """Every struct and enum that a method or an event leads to and that has no place of its own, by name."""
    elsewhere = {ErrorBody, ErrorCode, *_EVENTS, *(method.params for method in METHODS)}
    found: set[type] = set()
    for cls in (*_EVENTS, ErrorBody, *(m.result for m in METHODS), *(m.params for m in METHODS)):
        found |= set(_reached(mi.type_info(cls)))
    return sorted(found - elsewhere, key=lambda cls: cls.__name__)


def _reached(kind: mi.Type) -> Iterator[type]:
    match kind:
        case mi.StructType(cls=cls, fields=fields):
            yield cls
            for field in fields:
                yield from _reached(field.type)
        case mi.EnumType(cls=cls):
            yield cls
        case mi.ListType(item_type=item) | mi.Metadata(type=item):
            yield from _reached(item)
        case mi.UnionType(types=parts):
            for part in parts:
                yield from _reached(part)
