"""Owns putting a backup into a database: all of it or nothing, and only what is known to be whole."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from facade.config import Database
from facade.store.archive import Damaged, TableContent
from facade.store.archive_reader import ArchiveReader
from facade.store.backup import back_up
from facade.store.content import columns_of, content_of, empty, fill, holds_rows, tables_in
from facade.store.engine import Store
from facade.store.migrate import SchemaTooNew, head, knows, migrate
from facade.store.tables import login_revisions, metadata

__all__ = ["NotEmpty", "restore"]


class NotEmpty(Exception):
    """The database holds something that would be lost."""


async def restore(store: Store, path: Path, *, force: bool) -> list[TableContent]:
    """Replace what the database holds by what the backup holds, in one transaction, with the facade running or not.

    Running facades learn of it by the revision and forget whom they know. Returns what has been restored. Raises
    Damaged, SchemaTooNew, NotEmpty (unless forced), OSError, StartupFailed, DatabaseUnavailable.
    """
    with ArchiveReader.open(path) as archive:
        archive.verify()
        if not knows(archive.header.schema):
            raise SchemaTooNew(f"only a later release knows revision {archive.header.schema} of its schema")
        await store.open()
        if archive.header.schema == head():
            return await _replace(store, archive, force=force)
        async with _brought_up_to_date(archive) as newer:
            with ArchiveReader.open(newer) as made:
                return await _replace(store, made, force=force)


async def _replace(store: Store, archive: ArchiveReader, *, force: bool) -> list[TableContent]:
    own = [str(table.name) for table in metadata.sorted_tables]
    if sorted(archive.header.tables) != sorted(own):
        raise Damaged("its tables are not those of its schema")
    async with store.writing() as connection:
        if not force:
            for name in own:
                if name != login_revisions.name and await holds_rows(connection, name):
                    raise NotEmpty(name)
        before = await _revision(connection)
        for name in reversed(own):
            # Its row is what writers wait for in line, and stays.
            if name != login_revisions.name:
                await empty(connection, name)
        contents, restored = await _load(connection, archive)
        for content in contents:
            if content.table != login_revisions.name:
                found = await content_of(connection, content.table, content.columns)
                if (found.rows, found.sha256) != (content.rows, content.sha256):
                    raise Damaged(f"the database does not give back what it was given for {content.table}")
        await connection.execute(update(login_revisions).values(revision=max(before, restored) + 1))
    return contents


async def _load(connection: AsyncConnection, archive: ArchiveReader) -> tuple[list[TableContent], int]:
    """Fill the empty tables. Returns what came in, and the revision of the backup."""
    contents, revision = [], 0
    for content, rows in archive.tables():
        columns, _ = await connection.run_sync(columns_of, content.table)
        if sorted(columns) != sorted(content.columns):
            raise Damaged(f"the columns of {content.table} are not those of its schema")
        if content.table == login_revisions.name:
            place = content.columns.index(login_revisions.c.revision.name)
            for row in rows:
                revision = max(revision, int(str(row[place])))
        else:
            try:
                await fill(connection, content.table, content.columns, rows)
            except IntegrityError as error:
                raise Damaged(f"the rows of {content.table} contradict each other or other tables") from error
        contents.append(content)
    return contents, revision


async def _revision(connection: AsyncConnection) -> int:
    return int((await connection.execute(select(login_revisions.c.revision))).scalar_one())


@asynccontextmanager
async def _brought_up_to_date(archive: ArchiveReader) -> AsyncIterator[Path]:
    """A backup of an older schema, made one of this release's by its migrations in a database of its own.

    So nothing of the real database changes before everything has succeeded, also where changes of the schema cannot be
    taken back.
    """
    with tempfile.TemporaryDirectory(prefix="medforge-restore-") as folder:
        older = Store.of(Database(url=f"sqlite+aiosqlite:///{folder}/facade.db"))
        try:
            await older.prepare()
            async with older.writing() as connection:
                await connection.run_sync(migrate, archive.header.schema)
                present = await connection.run_sync(tables_in)
                if sorted(present) != sorted(archive.header.tables):
                    raise Damaged("its tables are not those of its schema")
                for name in reversed(present):
                    if name != login_revisions.name:
                        await empty(connection, name)
                _, revision = await _load(connection, archive)
                await connection.execute(update(login_revisions).values(revision=revision))
                await connection.run_sync(migrate)
            newer = Path(folder) / "newer"
            await back_up(older, newer)
            yield newer
        finally:
            await older.close()
