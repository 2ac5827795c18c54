"""Owns saying a JSON schema in words and in tables of HTML, as far as msgspec's schemas go."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

__all__ = ["code", "component", "fields", "prose", "words"]

_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
}
_FORMATS = {"uuid": "UUID", "date-time": "time (RFC 3339)", "uri": "address"}


def code(text: object) -> str:
    return f"<code>{escape(str(text))}</code>"


def prose(text: str) -> str:
    """Running text in which only `code` is marked."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text, quote=False))


def component(name: str) -> str:
    """A link to the type's own section."""
    return f'<a href="#type-{escape(name)}">{escape(name)}</a>'


def words(schema: dict[str, Any]) -> str:
    """The type in words, like `list of <a>Session</a>`, as HTML."""
    match schema:
        case {"$ref": reference}:
            return component(reference.rpartition("/")[2])
        case {"anyOf": parts}:
            return " or ".join(words(part) for part in parts)
        case {"enum": values}:
            return ", ".join(code(value) for value in values)
        case {"const": value}:
            return code(value)
        case {"type": "array", "items": items}:
            return f"list of {words(items)}"
        case {"type": "string", "format": kind} if kind in _FORMATS:
            return _FORMATS[kind]
        case {"type": kind}:
            plain = {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(kind, kind)
            bounds = [text.format(schema[key]) for key, text in _BOUNDS.items() if key in schema]
            pattern = [f"matching {code(schema['pattern'])}"] if "pattern" in schema else []
            return ", ".join([plain, *bounds, *pattern])
        case _:
            return "anything"


def fields(schema: dict[str, Any]) -> str:
    """A table of an object's fields, empty for one without any."""
    required = schema.get("required", [])
    rows = []
    for name, field in schema.get("properties", {}).items():
        notes = [prose(field["description"])] if "description" in field else []
        if "default" in field:
            notes.append(f"{code(json.dumps(field['default']))} unless said.")
        elif name not in required:
            notes.append("May be left out.")
        rows.append(f"<tr><td>{code(name)}</td><td>{words(field)}</td><td>{' '.join(notes)}</td></tr>")
    return f"<table><tbody>{''.join(rows)}</tbody></table>" if rows else ""
