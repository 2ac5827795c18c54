"""Owns the daemon's real database without a thread: SQLite is called on the event loop, so that a run can be repeated.

What it stores is on a file system in memory where there is one: flushing costs nothing there.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import event, pool
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_only

from medforged.adapters.sqlite import SqliteState, open_database
from medforged.adapters.sqlite.engine import READS

__all__ = ["Database", "InlineSqlite", "in_memory"]

_NAME = "medforged.db"
_MEMORY = Path("/dev/shm")


@contextmanager
def in_memory() -> Iterator[Path]:
    """A temporary folder, in memory where the host offers that."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


class Database:
    """A database in a folder, made from a migrated template: migrating anew costs more than a whole example."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.path = folder / _NAME
        shutil.copyfile(template, self.path)

    @staticmethod
    def template(folder: Path) -> Path:
        """Migrate an empty database as the daemon does, and close it."""

        async def migrate() -> None:
            await SqliteState(*await open_database(folder)).close()

        asyncio.run(migrate())
        return folder / _NAME

    def open(self) -> SqliteState:
        """As the daemon opens it, but for the driver's thread."""
        engine = create_async_engine(
            URL.create("sqlite+inline", database=str(self.path)),
            connect_args={"factory": _Connection, "isolation_level": None},
        )
        event.listen(engine.sync_engine, "connect", _configure)
        event.listen(engine.sync_engine, "begin", _begin)
        return SqliteState(engine, -1)


def _configure(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sqlalchemy.Connection) -> None:
    # As the adapter does it: who may write takes the lock at once.
    reads = READS.items() <= connection.get_execution_options().items()
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


class _Cursor(sqlite3.Cursor):
    """What SQLAlchemy asks of an asynchronous driver's cursor."""

    server_side = False

    async def _async_soft_close(self) -> None:
        pass


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


class InlineSqlite(SQLiteDialect_pysqlite):
    """Lets others run wherever the driver with the thread does: around each statement and each commit."""

    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:
        return pool.AsyncAdaptedQueuePool

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        await_only(asyncio.sleep(0))
        cursor.execute(statement, parameters)

    def do_commit(self, dbapi_connection: Any) -> None:
        await_only(asyncio.sleep(0))
        dbapi_connection.commit()
        await_only(asyncio.sleep(0))


registry.register("sqlite.inline", __name__, "InlineSqlite")
