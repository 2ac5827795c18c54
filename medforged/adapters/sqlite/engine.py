"""Owns opening the daemon's database: the lock against a second daemon, migrations, and the connection's settings."""

from __future__ import annotations

import asyncio
import fcntl
import os
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from medforged.contract.exitcodes import ExitCode
from medforged.domain.errors import StartupFailed

__all__ = ["READS", "open_database"]

_BUSY_TIMEOUT_MS = 5000
# Execution options of transactions that only read.
READS = {"medforge_reads": True}


async def open_database(directory: Path, *, busy_timeout_ms: int = _BUSY_TIMEOUT_MS) -> tuple[AsyncEngine, int]:
    """The migrated database `medforged.db` in a directory of root's own, and the descriptor of the lock to keep open.

    `busy_timeout_ms`: how long a transaction waits for another program's.

    Raises StartupFailed when the directory cannot be used, another daemon holds the database, or it cannot be migrated.
    """
    lock = await asyncio.to_thread(_lock, directory)
    path = directory / "medforged.db"
    try:
        await asyncio.to_thread(_migrate, path)
    except (DBAPIError, CommandError) as error:
        os.close(lock)
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StartupFailed(
            f"cannot open the database {path}: {cause}; check disk space and permissions, or restore it from a backup",
            ExitCode.UNAVAILABLE,
        ) from error
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=4, max_overflow=4)
    event.listen(engine.sync_engine, "connect", partial(_configure, busy_timeout_ms))
    event.listen(engine.sync_engine, "begin", _begin)
    return engine, lock


def _lock(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "medforged.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupFailed(
            f"cannot use the state directory {directory}: {error.strerror}; run as root or set daemon.state_directory",
            ExitCode.UNAVAILABLE,
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StartupFailed(
            f"cannot start: another medforged uses {directory}; stop it, or set another daemon.state_directory",
            ExitCode.UNAVAILABLE,
        ) from error
    return lock


def _configure(busy_timeout_ms: int, connection: Any, _record: Any) -> None:
    # The driver must not begin transactions of its own, or BEGIN IMMEDIATE below would come too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={busy_timeout_ms}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sqlalchemy.Connection) -> None:
    # A deferred transaction that reads and then writes is refused at once when another writer came between,
    # whatever the busy timeout; so every transaction that may write takes the write lock from its start. One that only
    # reads needs no lock, and goes on while somebody else holds it.
    reads = READS.items() <= connection.get_execution_options().items()
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _migrate(path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    finally:
        engine.dispose()
    path.chmod(0o600)
