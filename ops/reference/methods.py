"""Owns the parts of a page that tell a method table: its overview, a section for each method, and the types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

import msgspec
import msgspec.inspect as mi

from medforged.contract.errors import ErrorBody, ErrorCode
from medforged.contract.methods import Method
from ops.reference.describe import describe
from ops.reference.markdown import anchor, code, table
from ops.reference.source import attribute_docs, class_doc


def overview(methods: Iterable[Method[Any, Any]]) -> str:
    """All methods on one screen."""
    rows = [
        [f"[{code(m.name)}](#{anchor(heading(m))})", m.access.name.lower(), "yes" if m.audited else "no", m.summary]
        for m in methods
    ]
    return table(["method", "who may call", "audited", "what it does"], rows)


def section(method: Method[Any, Any]) -> list[str]:
    info = mi.type_info(method.params)
    assert isinstance(info, mi.StructType)
    takes = (
        table(["parameter", "takes", "default"], [_parameter(field) for field in info.fields]) if info.fields else ""
    )
    doc = class_doc(method.params)
    answers = f"Answers {_mention(method.result)}."
    return [f"### {heading(method)}", method.summary, doc, takes or "Takes no parameters.", answers]


def heading(method: Method[Any, Any]) -> str:
    return f"POST /v1/{method.name}"


def _parameter(field: mi.Field) -> list[str]:
    default = "required" if field.required else code(_json(_default(field)))
    return [code(field.encode_name), describe(field.type, _mention), default]


def _default(field: mi.Field) -> object:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def struct(cls: type) -> list[str]:
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


def types(methods: Iterable[Method[Any, Any]], others: Iterable[type] = ()) -> list[str]:
    """A section for every struct and enum that a method or another type leads to and that has no place of its own."""
    methods, others = tuple(methods), tuple(others)
    elsewhere = {ErrorBody, ErrorCode, *others, *(method.params for method in methods)}
    found: set[type] = set()
    for cls in (*others, *(m.result for m in methods), *(m.params for m in methods)):
        found |= set(_reached(mi.type_info(cls)))
    told = sorted(found - elsewhere, key=lambda cls: cls.__name__)
    return [block for cls in told for block in (struct(cls) if issubclass(cls, msgspec.Struct) else _enum(cls))]


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
