"""Owns how MariaDB is reached: what is set up for every connection, and how writers and migrations wait in line."""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.mysql.base import MySQLDDLCompiler
from sqlalchemy.engine import URL, Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import Table

from facade.store.backend import BUSY_SECONDS
from facade.store.failures import Unusable
from facade.store.mariadb_errors import is_state, why_unusable
from facade.store.migrate import behind, migrate
from facade.store.progress import PROGRESS, Progress
from facade.store.tables import login_revisions, metadata
from medforged.contract.exitcodes import ExitCode

__all__ = ["COLLATION", "MariaDb"]

# Text is compared by its code points alone: accents and case matter as they do to SQLite, and so does a space at the
# end, which MariaDB's other collations ignore (PAD SPACE).
COLLATION = "utf8mb4_nopad_bin"
# Since when a change of the schema is done as a whole or not at all (https://mariadb.com/kb/en/atomic-ddl/).
_OLDEST = (10, 6)
_CONNECT_SECONDS = 5.0
# Longer than a transaction waits for a lock, and less than health waits for an answer.
_ANSWER_SECONDS = 8.0
_SCHEMA_LOCK_SECONDS = 60
# The server ends connections that are idle for longer, and we do so first.
_IDLE_SECONDS = 3600
_RENEW_SECONDS = _IDLE_SECONDS // 2
# Tables that refer to each other cannot be converted one by one.
_RENEW = "make a backup, and restore it into a new database"
_SETTINGS = {
    # What does not fit is an error, never cut off.
    "sql_mode": "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO'",
    "time_zone": "'+00:00'",
    "innodb_lock_wait_timeout": str(round(BUSY_SECONDS)),
    "lock_wait_timeout": str(round(BUSY_SECONDS)),
    "wait_timeout": str(_IDLE_SECONDS),
    "foreign_key_checks": "1",
}

_writers_lock = select(login_revisions.c.id).where(login_revisions.c.id == 1).with_for_update()
_other_collations = text(
    "SELECT table_name, column_name, collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
    " AND table_name IN :tables AND collation_name <> :collation ORDER BY 1, 2"
).bindparams(bindparam("tables", expanding=True))
_other_engines = text(
    "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE()"
    " AND table_name IN :tables AND engine <> 'InnoDB' ORDER BY 1"
).bindparams(bindparam("tables", expanding=True))


class MariaDb:
    """A database on a server. `url` is without the password, which nothing but the driver ever gets."""

    def __init__(self, url: URL, password: str | None, *, patient: bool = False) -> None:
        self._url = url.difference_update_query(["ssl_ca", "ssl_cert", "ssl_key", "charset"])
        self._arguments: dict[str, Any] = {
            # As bytes, for the driver would encode text as Latin-1.
            "password": (password or "").encode(),
            "charset": "utf8mb4",
            "init_command": "SET SESSION " + ", ".join(f"{name} = {value}" for name, value in _SETTINGS.items()),
            "connect_timeout": _CONNECT_SECONDS,
            "binary_prefix": True,
        }
        if (context := _tls(url)) is not None:
            self._arguments["ssl"] = context
        self._patient = patient

    @property
    def told(self) -> str:
        where = self._url.query.get("unix_socket") or f"{self._url.host}:{self._url.port or 3306}"
        return f"{self._url.database} of {self._url.username} at {where}"

    def engine(self, connections: int) -> AsyncEngine:
        arguments = self._arguments if self._patient else {**self._arguments, "read_timeout": _ANSWER_SECONDS}
        return self._engine(
            arguments,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=BUSY_SECONDS,
            # Connections that the server has dropped meanwhile are noticed before anything is asked of them.
            pool_pre_ping=True,
            pool_recycle=_RENEW_SECONDS,
        )

    async def prepare(self) -> None:
        """Databases are made by whoever runs the server."""

    async def find(self) -> None:
        await self.prepare()

    @asynccontextmanager
    async def writing(self, connection: AsyncConnection) -> AsyncIterator[None]:
        """The first statement locks the row that all writers lock first.

        It is a locking read, so that the state which the transaction sees is fixed after it has its turn.
        """
        async with connection.begin():
            (await connection.execute(_writers_lock)).scalar_one()
            yield

    @asynccontextmanager
    async def migrating(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:  # noqa: ARG002  # its deadline is for requests
        """Waits for a lock of the server that goes with the connection, whatever happens to this process."""
        patient = self._engine(self._arguments, poolclass=NullPool)
        try:
            async with patient.connect() as connection:
                _require_version(connection)
                name = f"medforge-schema-{hashlib.sha256(str(self._url.database).encode()).hexdigest()[:16]}"
                if await connection.scalar(select(func.get_lock(name, _SCHEMA_LOCK_SECONDS))) != 1:
                    raise Unusable(
                        f"another process has been changing its schema for {_SCHEMA_LOCK_SECONDS} s",
                        "wait until it has ended and start again",
                        ExitCode.TEMPORARY,
                    )
                yield connection
                await connection.commit()
        finally:
            await patient.dispose()

    def migrate(self, connection: Connection) -> None:
        if behind(connection):
            progress = Progress(connection)
            migrate(connection, options={PROGRESS: progress})
            connection.commit()
            progress.end()
        elif Progress.left(connection):
            Progress(connection).end()

    async def check_tables(self, connection: AsyncConnection) -> None:
        tables = list(metadata.tables)
        for table, engine in (await connection.execute(_other_engines, {"tables": tables})).all():
            raise Unusable(
                f"its table {table} has the engine {engine}, which has no transactions",
                _RENEW,
            )
        wanted = {"tables": tables, "collation": COLLATION}
        for table, column, collation in (await connection.execute(_other_collations, wanted)).all():
            raise Unusable(
                f"{table}.{column} has the collation {collation}, to which different texts can be the same",
                _RENEW,
            )

    async def faults(self, connection: AsyncConnection, tables: list[str]) -> list[str]:
        found = []
        for table in tables:
            rows = (await connection.execute(text(f"CHECK TABLE `{table}` EXTENDED"))).all()
            found += [f"{table}: {row[3]}" for row in rows if row[3] != "OK"]
        try:
            await self.check_tables(connection)
        except Unusable as error:
            found.append(error.reason)
        return found

    def unavailable(self, error: Exception) -> bool:
        return is_state(error)

    def unusable(self, error: Exception) -> Unusable:
        return why_unusable(error, str(self._url.username), str(self._url.database))

    def _engine(self, arguments: dict[str, Any], **pool: Any) -> AsyncEngine:
        try:
            engine = create_async_engine(
                self._url, connect_args=arguments, isolation_level="REPEATABLE READ", hide_parameters=True, **pool
            )
        except ModuleNotFoundError as error:
            raise Unusable(
                "the driver asyncmy is not installed", "pip install 'medforge[mariadb]', or use SQLite"
            ) from error
        engine.sync_engine.dialect.ddl_compiler = _Tables
        # The driver repeats the server's warnings, which can have values in them. What matters is an error here.
        logging.getLogger("asyncmy").setLevel(logging.ERROR)
        return engine


class _Tables(MySQLDDLCompiler):
    """Makes every table alike, whatever the database's own defaults are."""

    def post_create_table(self, table: Table) -> str:
        return f"{super().post_create_table(table)} ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={COLLATION}"


def _require_version(connection: AsyncConnection) -> None:
    dialect = connection.dialect
    version = ".".join(map(str, dialect.server_version_info or ()))
    if not getattr(dialect, "is_mariadb", False):
        raise Unusable(f"the server is not MariaDB but MySQL {version}", "use MariaDB 10.6 or newer, or SQLite")
    if (dialect.server_version_info or ()) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise Unusable(f"the server is MariaDB {version}", f"use {oldest} or newer, or SQLite")


def _tls(url: URL) -> ssl.SSLContext | None:
    """Encryption with the server's name checked, when the URL names an authority or a certificate of ours."""
    ca, cert, key = (str(url.query[name]) if name in url.query else None for name in ("ssl_ca", "ssl_cert", "ssl_key"))
    if ca is None and cert is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise Unusable(
            f"its certificates cannot be read ({error.strerror or error})", "correct ssl_ca, ssl_cert and ssl_key"
        ) from error
    return context
