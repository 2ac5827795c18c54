"""Owns making a backup: one state of every table, while the facade goes on, in a file that has been read again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from facade.store.archive import FORMAT, VERSION, Header, TableContent
from facade.store.archive_writer import ArchiveWriter
from facade.store.content import columns_of, rows_of
from facade.store.engine import Store
from facade.store.migrate import revision
from facade.store.tables import metadata
from medforged import __version__

__all__ = ["back_up"]


async def back_up(store: Store, path: Path) -> list[TableContent]:
    """Write every table of this release to the file. Returns what is in it. Raises OSError, DatabaseUnavailable."""
    names = [str(table.name) for table in metadata.sorted_tables]
    async with store.reading() as connection:
        header = Header(
            format=FORMAT,
            version=VERSION,
            schema=str(await connection.run_sync(revision)),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            release=__version__,
            tables=names,
        )
        with ArchiveWriter(path, header) as writer:
            for name in names:
                columns, key = await connection.run_sync(columns_of, name)
                content = writer.start(name, columns)
                async for row in rows_of(connection, name, columns, key):
                    writer.row(content, row)
                writer.end(content)
            return writer.finish()
