"""Owns reading and writing whole tables in the form that both databases store, and what a table's content is.

Columns are without types here, so that values are what the database has and not what a release makes of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice

from sqlalchemy import MetaData, TableClause, column, delete, insert, inspect, select, table
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from facade.store.archive import TableContent, encode_row

__all__ = ["columns_of", "content_of", "empty", "fill", "holds_rows", "rows_of", "tables_in"]

_BATCH = 500
VERSION_TABLE = "alembic_version"


def columns_of(connection: Connection, name: str) -> tuple[list[str], list[str]]:
    """The columns that a table has, and those of its primary key."""
    inspector = inspect(connection)
    key = inspector.get_pk_constraint(name)["constrained_columns"]
    return [str(each["name"]) for each in inspector.get_columns(name)], list(key)


def tables_in(connection: Connection) -> list[str]:
    """The tables that the database has, those first that others refer to; without alembic's own."""
    found = MetaData()
    found.reflect(connection)
    return [str(each.name) for each in found.sorted_tables if each.name != VERSION_TABLE]


async def rows_of(
    connection: AsyncConnection, name: str, columns: Sequence[str], key: Sequence[str]
) -> AsyncIterator[tuple[object, ...]]:
    """Every row, in the order of the primary key."""
    source = _bare(name, columns)
    query = select(*source.columns).order_by(*(source.columns[each] for each in key))
    async with connection.stream(query) as result:
        async for row in result:
            yield tuple(row)


async def content_of(connection: AsyncConnection, name: str, columns: Sequence[str]) -> TableContent:
    """What a backup would have of the table, with its columns in this order."""
    _, key = await connection.run_sync(columns_of, name)
    content = TableContent(name, tuple(columns))
    async for row in rows_of(connection, name, columns, key):
        content.add(encode_row(row))
    return content


async def holds_rows(connection: AsyncConnection, name: str) -> bool:
    return (await connection.execute(select(1).select_from(table(name)).limit(1))).first() is not None


async def empty(connection: AsyncConnection, name: str) -> None:
    await connection.execute(delete(table(name)))


async def fill(
    connection: AsyncConnection, name: str, columns: Sequence[str], rows: Iterable[tuple[object, ...]]
) -> None:
    """Insert the rows, a few hundred at a time."""
    statement = insert(_bare(name, columns))
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH)):
        await connection.execute(statement, [dict(zip(columns, row, strict=True)) for row in batch])


def _bare(name: str, columns: Sequence[str]) -> TableClause:
    return table(name, *(column(each) for each in columns))
