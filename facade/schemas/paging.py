"""Owns how a listing is read page by page: how many, from where on, and the opaque text of a cursor."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from facade.problems import Problem

__all__ = [
    "MAX_LIMIT",
    "Cursor",
    "Paging",
    "cursor_text",
    "invalid_cursor",
    "invalid_limit",
    "read_cursor",
]

_DEFAULT_LIMIT = 50
MAX_LIMIT = 500
# Far longer than any that we make.
_CURSOR_MAX_LENGTH = 200


class Paging(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of every listing."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT, description="How many entries a page has at most.")] = (
        _DEFAULT_LIMIT
    )
    cursor: (
        Annotated[str, msgspec.Meta(description="`meta.next_cursor` of the page before; nothing else is one.")] | None
    ) = None


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last entry already seen. It grants nothing: what a caller may see is decided apart from it."""

    created_at: datetime
    id: UUID


def cursor_text(created_at: datetime, id_: UUID) -> str:
    """The cursor behind this entry, in letters, digits, - and _."""
    packed = msgspec.json.encode(Cursor(created_at, id_))
    return base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def read_cursor(text: str | None) -> Cursor | None:
    """Raises Problem 400 for a text that no listing has given out."""
    if text is None:
        return None
    try:
        if len(text) > _CURSOR_MAX_LENGTH:
            raise ValueError("too long")
        packed = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(packed, type=Cursor)
        if cursor.created_at.tzinfo is None:
            raise ValueError("without time zone")
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise invalid_cursor() from error
    return cursor


def invalid_cursor() -> Problem:
    return Problem(400, "The cursor is not one that this listing has given out.", type_="pagination/invalid-cursor")


def invalid_limit() -> Problem:
    told = f"The limit must be a whole number from 1 to {MAX_LIMIT}."
    return Problem(400, told, type_="pagination/invalid-limit")
