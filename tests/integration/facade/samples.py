"""Rows for every table, made from what the tables say of themselves, so that no table can be forgotten."""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Boolean, Column, Integer, LargeBinary, String, Table, Uuid, insert, update

from facade.store.engine import Store
from facade.store.tables import UtcDateTime, login_revisions, metadata

__all__ = ["REVISION", "fill"]

REVISION = 41
# What databases, drivers and JSON might take for something else.
TEXTS = (
    "",
    " a ",
    "ä€😀",
    "e\u0301",
    'it\'s "%s" :x \\ \n\t',
    "\x00",
    "NULL",
    "A",
    "a",
    "İstanbul",
    "[1]",
    '{"base64":"AA=="}',
)
_numbers = itertools.count()


async def fill(store: Store, rows: int = len(TEXTS)) -> None:
    """Some rows in every table that this release has."""
    made: dict[str, list[dict[str, Any]]] = {}
    async with store.writing() as connection:
        for table in metadata.sorted_tables:
            if table is login_revisions:
                await connection.execute(update(table).values(revision=REVISION))
                continue
            made[table.name] = [_row(table, number, made) for number in range(rows)]
            await connection.execute(insert(table), made[table.name])


def _row(table: Table, number: int, made: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {column.name: _value(column, number, made) for column in table.columns}


def _value(column: Column[Any], number: int, made: dict[str, list[dict[str, Any]]]) -> Any:
    if column.nullable and number % 3 == 0:
        return None
    for key in column.foreign_keys:
        rows = made[key.column.table.name]
        return rows[number % len(rows)][key.column.name]
    match column.type:
        case Uuid():
            return uuid4()
        case UtcDateTime():
            return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number, microseconds=number)
        case Boolean():
            return number % 2 == 0
        case Integer():
            return number * 1_000_003 % 2**31
        case LargeBinary(length=length):
            return os.urandom(length or 100)
        case String(length=length):
            text = f"{TEXTS[number % len(TEXTS)]}{next(_numbers)}{TEXTS[number % len(TEXTS)]}"
            return text[: length or 100]
    pytest.fail(f"no sample for {column}: teach {__name__} its type, and see that a backup keeps it")
