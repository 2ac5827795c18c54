"""Owns how SQLite is opened: one file, a write-ahead log, and transactions that wait for each other."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from facade.store.backend import BUSY_SECONDS
from facade.store.failures import Unusable
from facade.store.migrate import migrate
from medforged.contract.exitcodes import ExitCode

__all__ = ["Sqlite"]

_RETRY_SECONDS = 0.02
_IMMEDIATE = "medforge_immediate"
_PRAGMAS = (
    f"busy_timeout = {round(BUSY_SECONDS * 1000)}",
    "synchronous = FULL",
    "foreign_keys = ON",
)
# https://sqlite.org/rescode.html: what the file, the disk or another connection is the cause of.
_STATES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)
_PRIMARY = 0xFF


class Sqlite:
    """A database in a file. Each connection is a thread; requests that find none free wait in line."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._path = str(url.database)

    @property
    def told(self) -> str:
        return self._path

    def engine(self, connections: int) -> AsyncEngine:
        engine = create_async_engine(
            self._url, pool_size=connections, max_overflow=0, pool_timeout=BUSY_SECONDS, hide_parameters=True
        )
        event.listen(engine.sync_engine, "connect", _configure)
        event.listen(engine.sync_engine, "begin", _begin)
        return engine

    async def prepare(self) -> None:
        await asyncio.to_thread(_prepare, self._path)

    async def find(self) -> None:
        if not await asyncio.to_thread(Path(self._path).is_file):
            raise Unusable("there is no such file", "name the facade's configuration with --config", ExitCode.NOT_FOUND)
        await self.prepare()

    @asynccontextmanager
    async def writing(self, connection: AsyncConnection) -> AsyncIterator[None]:
        """A deferred transaction that reads first and then writes would fail with "database is locked" at once,
        whatever the busy timeout, when another has written in between.
        """
        await connection.execution_options(**{_IMMEDIATE: True})
        async with connection.begin():
            yield

    @asynccontextmanager
    async def migrating(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        async with engine.connect() as connection, self.writing(connection):
            yield connection

    def migrate(self, connection: Connection) -> None:
        migrate(connection)

    async def check_tables(self, connection: AsyncConnection) -> None:
        """SQLite compares text byte by byte unless it is told otherwise, and nothing tells it."""

    async def faults(self, connection: AsyncConnection, tables: list[str]) -> list[str]:  # noqa: ARG002  # it knows its tables
        try:
            told = (await connection.execute(text("PRAGMA integrity_check"))).scalars().all()
        except DBAPIError as error:
            return [str(error.orig)]
        return [str(line) for line in told if line != "ok"]

    def unavailable(self, error: Exception) -> bool:
        if isinstance(error, DBAPIError):
            return getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY in _STATES
        return isinstance(error, PoolTimeout)

    def unusable(self, error: Exception) -> Unusable:
        reason = str(error.orig if isinstance(error, DBAPIError) else error)
        return Unusable(reason, "its folder must exist and be writable for the facade's user", ExitCode.UNAVAILABLE)


def _prepare(path: str) -> None:
    """Open the file for writing once, and have it keep a write-ahead log from now on. Raises sqlite3.Error.

    Nothing of the event loop is at stake here: when opening fails, aiosqlite's thread may report to a loop that
    has ended by then, and the operator would find a traceback beside the one sentence that matters. And the change
    to a write-ahead log does not wait for others as everything else does, so that it is tried again.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
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
