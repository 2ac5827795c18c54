"""Owns the query of a listing: limit, cursor and filter, and the opaque text of a cursor."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from uuid import UUID

import msgspec
from aiohttp import web

from facade.problems import Problem, validation
from medforged.contract.sessions import Session, SessionStatus

__all__ = ["DEFAULT_LIMIT", "MAX_LIMIT", "Cursor", "cursor_after", "read_cursor", "read_limit", "read_statuses"]

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
# Far longer than any that we make.
_CURSOR_MAX_LENGTH = 200


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last session already seen. It grants nothing: what a caller may see is decided apart from it."""

    created_at: datetime
    id: UUID


def cursor_after(session: Session) -> str:
    packed = msgspec.json.encode(Cursor(session.created_at, session.id))
    return base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def read_cursor(request: web.Request) -> Cursor | None:
    """Raises Problem 400 for a text that no listing has given out."""
    text = request.query.get("cursor")
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
        raise Problem(
            400, "The cursor is not one that this listing has given out.", type_="pagination/invalid-cursor"
        ) from error
    return cursor


def read_limit(request: web.Request) -> int:
    """Raises Problem 400 for anything but a whole number from 1 to 500."""
    text = request.query.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise Problem(400, f"The limit must be a whole number from 1 to {MAX_LIMIT}.", type_="pagination/invalid-limit")
    return limit


def read_statuses(request: web.Request) -> list[SessionStatus]:
    """`status=running`, repeated or separated by commas; none means all. Raises Problem 422."""
    wanted: dict[SessionStatus, None] = {}
    for text in ",".join(request.query.getall("status", [])).split(","):
        if not text:
            continue
        try:
            wanted[SessionStatus(text)] = None
        except ValueError as error:
            known = ", ".join(SessionStatus)
            raise validation((["query", "status"], f"A status is one of {known}.", "value_error")) from error
    return list(wanted)
