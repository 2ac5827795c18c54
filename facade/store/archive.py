"""Owns the form of a backup: one file of JSON lines, the same whichever database it comes from, whose damage shows.

The first line is the header. Each table follows with a line that names its columns, a line for each row in the order
of its primary key, and a line with their number and SHA-256. The last line is the SHA-256 of all lines before it.
Values are what both databases store: numbers, text (UUIDs as 32 hexadecimal digits, times in UTC as
`2026-02-03 04:05:06.000789`), null, and bytes as an object whose one key is `base64`.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

__all__ = [
    "FORMAT",
    "VERSION",
    "Damaged",
    "Header",
    "Seal",
    "TableContent",
    "TableEnd",
    "TableStart",
    "decoded",
    "encode_row",
]

FORMAT = "medforge-facade-backup"
VERSION = 1
_BLOB = "base64"


class Damaged(Exception):
    """The file is not a backup, or not as it was written."""


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file is. `schema` is the revision of the database that it was made from."""

    format: str
    version: int
    schema: str
    created_at: str
    release: str
    tables: list[str]


class TableStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Before the rows of a table."""

    table: str
    columns: list[str]


class TableEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """After the rows of a table."""

    rows: int
    sha256: str


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line."""

    sha256: str


@dataclass(slots=True)
class TableContent:
    """What can be compared of a table: its columns, how many rows, and a digest of them."""

    table: str
    columns: tuple[str, ...]
    rows: int = 0
    _digest: Any = field(default_factory=hashlib.sha256, repr=False)

    def add(self, line: bytes) -> None:
        self.rows += 1
        self._digest.update(line)

    @property
    def sha256(self) -> str:
        return str(self._digest.hexdigest())


def encode_row(values: Sequence[object]) -> bytes:
    """The line of a row. Raises TypeError for a value that no column of ours has."""
    return msgspec.json.encode([_encoded(value) for value in values]) + b"\n"


def _encoded(value: object) -> object:
    match value:
        case None | str():
            return value
        case bool() | int():
            return int(value)
        case bytes():
            return {_BLOB: b64encode(value).decode()}
        case datetime():
            return value.isoformat(sep=" ", timespec="microseconds")
    raise TypeError(f"cannot keep a {type(value).__name__} in a backup; teach facade.store.archive how")


def decoded(value: object) -> object:
    """A value of a row that has been read. Raises Damaged, ValueError."""
    match value:
        case None | str() | int():
            return value
        case dict() if value.keys() == {_BLOB} and isinstance(value[_BLOB], str):
            return b64decode(value[_BLOB], validate=True)
    raise Damaged("a value is none")
