"""Owns saying in words what a msgspec type takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec.inspect as mi

from ops.reference.markdown import code

# How a struct or enum is mentioned: the RPC page links to it.
Mention = Callable[[type], str]

_WORDS: dict[type[mi.Type], str] = {
    mi.BoolType: "true or false",
    mi.UUIDType: "UUID",
    mi.DateTimeType: "time (RFC 3339)",
    mi.NoneType: "null",
}


def describe(kind: mi.Type, mention: Mention) -> str:
    """The type in words, like `list of UUID` or `whole number, 1 to 500`."""
    match kind:
        case mi.Metadata(type=inner):
            return describe(inner, mention)
        case mi.StructType(cls=cls) | mi.EnumType(cls=cls):
            return mention(cls)
        case mi.LiteralType(values=values):
            return ", ".join(code(value) for value in sorted(values, key=str))
        case mi.ListType(item_type=item) | mi.VarTupleType(item_type=item):
            return f"list of {describe(item, mention)}"
        case mi.DictType(key_type=key, value_type=value):
            return f"object from {describe(key, mention)} to {describe(value, mention)}"
        case mi.UnionType(types=parts):
            return " or ".join(describe(part, mention) for part in parts)
        case mi.IntType():
            return "whole number" + _bounds(kind)
        case mi.FloatType():
            return "number" + _bounds(kind)
        case mi.StrType(pattern=pattern):
            return f"text matching {code(pattern)}" if pattern else "text"
        case _:
            return _WORDS[type(kind)]


def _bounds(kind: Any) -> str:
    if kind.ge is not None and kind.le is not None:
        return f", {kind.ge} to {kind.le}"
    bounds = [
        f"{word} {limit}"
        for word, limit in (("at least", kind.ge), ("more than", kind.gt), ("at most", kind.le), ("below", kind.lt))
        if limit is not None
    ]
    return "".join(f", {bound}" for bound in bounds)
