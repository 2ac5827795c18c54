"""Owns looking whether a database is sound: its storage, its references, and whether its schema is this release's."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, and_, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import ForeignKeyConstraint

from facade.store.engine import Store
from facade.store.tables import login_revisions, metadata

__all__ = ["faults"]


async def faults(store: Store) -> list[str]:
    """What is wrong with the database, a sentence each; empty when it is sound. Raises DatabaseUnavailable."""
    async with store.reading() as connection:
        found = await store.backend.faults(connection, list(metadata.tables))
    if found:
        # What is stored is not to be believed, so that further questions would only lead astray.
        return found
    async with store.reading() as connection:
        try:
            found += await _orphans(connection)
            found += await connection.run_sync(_differences)
            count = await connection.scalar(select(func.count()).select_from(login_revisions))
            if count != 1:
                found.append(f"login_revisions has {count} rows instead of one")
        except SQLAlchemyError as error:
            found.append(str(getattr(error, "orig", None) or error))
    return found


async def _orphans(connection: AsyncConnection) -> list[str]:
    """Rows that refer to rows which do not exist."""
    keys = [key for table in metadata.sorted_tables for key in table.foreign_key_constraints]
    counts = [(key, await connection.scalar(_orphans_of(key))) for key in keys]
    return [
        f"{key.table.name} has {count} rows whose {key.referred_table.name} do not exist"
        for key, count in counts
        if count
    ]


def _orphans_of(key: ForeignKeyConstraint) -> Any:
    child, parent = key.table, key.referred_table.alias("parent")
    pairs = [(child.c[each.parent.name], parent.c[each.column.name]) for each in key.elements]
    joined = child.outerjoin(parent, and_(*(here == there for here, there in pairs)))
    given = [here.is_not(None) for here, _ in pairs]
    return select(func.count()).select_from(joined).where(*given, pairs[0][1].is_(None))


def _differences(connection: Connection) -> list[str]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    flat = [
        each
        for found in compare_metadata(context, metadata)
        for each in (found if isinstance(found, list) else [found])
    ]
    return [f"its schema is not this release's: {' '.join(map(_told, difference))}" for difference in flat]


def _told(part: object) -> str:
    return str(getattr(part, "name", None) or part)
