"""Owns the connection to the facade's database: how SQLite is opened, and what a transaction is."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from facade.startup import StartupFailed
from facade.store.migrate import SchemaTooNew, migrate
from medforged.contract.exitcodes import ExitCode

__all__ = ["Store"]

_BUSY_TIMEOUT_SECONDS = 5.0
_RETRY_SECONDS = 0.02
# Each connection is a thread; requests that find none free wait in line.
_CONNECTIONS = 4
_IMMEDIATE = "medforge_immediate"
_PRAGMAS = (
    f"busy_timeout = {round(_BUSY_TIMEOUT_SECONDS * 1000)}",
    "synchronous = FULL",
    "foreign_keys = ON",
)


class Store:
    """Reading and writing transactions on one database. Call `open` before and `close` after use."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._engine = create_async_engine(
            self._url, pool_size=_CONNECTIONS, max_overflow=0, pool_timeout=_BUSY_TIMEOUT_SECONDS
        )
        event.listen(self._engine.sync_engine, "connect", _configure)
        event.listen(self._engine.sync_engine, "begin", _begin)

    async def open(self) -> None:
        """Bring the schema up to date. Raises StartupFailed when the database cannot be used."""
        try:
            await asyncio.to_thread(_prepare, str(self._url.database))
            async with self.writing() as connection:
                await connection.run_sync(migrate)
        except SchemaTooNew as error:
            raise StartupFailed(
                f"cannot use the database {self._url.database}: {error}; install that release again, "
                "or restore the database that belongs to this one",
                ExitCode.CONFIG,
            ) from error
        except (SQLAlchemyError, sqlite3.Error) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise StartupFailed(
                f"cannot use the database {self._url.database}: {reason}; "
                "its folder must exist and be writable for the facade's user",
                ExitCode.UNAVAILABLE,
            ) from error

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one state of the database."""
        async with self._engine.connect() as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is alone in writing from its start.

        A deferred one that reads first and then writes would fail with "database is locked" at once, whatever
        the busy timeout, when another has written in between.
        """
        async with self._engine.connect() as connection:
            await connection.execution_options(**{_IMMEDIATE: True})
            async with connection.begin():
                yield connection


def _prepare(path: str) -> None:
    """Open the file for writing once, and have it keep a write-ahead log from now on. Raises sqlite3.Error.

    Nothing of the event loop is at stake here: when opening fails, aiosqlite's thread may report to a loop that
    has ended by then, and the operator would find a traceback beside the one sentence that matters. And the change
    to a write-ahead log does not wait for others as everything else does, so that it is tried again.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_SECONDS)) as connection:
        connection.isolation_level = None
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").close()
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_SECONDS)


def _configure(connection: Any, _record: Any) -> None:
    # The driver is kept from opening transactions by itself: `_begin` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
    except BaseException:
        # Nobody else closes a connection that was refused here, and each is a thread.
        connection.close()
        raise
    cursor.close()


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
