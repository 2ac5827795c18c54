"""Owns the facade's transactions: the one door to its database, whichever kind `database.url` names."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from facade.config import Database
from facade.startup import StartupFailed
from facade.store.backend import Backend
from facade.store.failures import DatabaseUnavailable, Unusable
from facade.store.mariadb import MariaDb
from facade.store.migrate import SchemaTooNew, SchemaTooOld, require_head
from facade.store.sqlite import Sqlite
from facade.store.urls import SQLITE, address, password
from medforged.contract.exitcodes import ExitCode

__all__ = ["Store"]

_REASON_LENGTH = 300


class Store:
    """Reading and writing transactions on one database. Call `open` before and `close` after use."""

    def __init__(self, backend: Backend, connections: int) -> None:
        self._backend = backend
        self._engine = backend.engine(connections)
        self.failures = 0
        """How many transactions this process could not do, since the database did not answer or could not."""

    @classmethod
    def of(cls, settings: Database, environ: Mapping[str, str] = os.environ, *, patient: bool = False) -> Store:
        """The database that the settings name; nothing connects to it yet. Raises StartupFailed.

        `patient`: a statement may take as long as it likes. Requests are not: they are told that the database does
        not answer.
        """
        url = address(settings.url)
        if url.drivername == SQLITE:
            return cls(Sqlite(url), settings.connections)
        secret = password(settings, url, environ)
        try:
            return cls(MariaDb(url.set(password=None), secret, patient=patient), settings.connections)
        except Unusable as error:
            raise StartupFailed(f"cannot use database.url: {error}", ExitCode(error.exit_code)) from error

    @property
    def told(self) -> str:
        """Which database this is, for messages."""
        return self._backend.told

    @property
    def backend(self) -> Backend:
        """What is particular to this kind of database."""
        return self._backend

    async def open(self) -> None:
        """Bring the schema up to date. Raises StartupFailed when the database cannot be used."""
        with self._opening():
            await self._backend.prepare()
            async with self._backend.migrating(self._engine) as connection:
                await connection.run_sync(self._backend.migrate)
                await self._backend.check_tables(connection)

    async def find(self) -> None:
        """Make sure that there is a database with this release's schema, and change nothing. Raises StartupFailed."""
        with self._opening():
            await self._backend.find()
            async with self._engine.connect() as connection:
                await connection.run_sync(require_head)

    async def prepare(self) -> None:
        """Make sure that there is a database to connect to, in which there may be nothing. Raises StartupFailed."""
        with self._opening():
            await self._backend.prepare()

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one state of the database. Raises DatabaseUnavailable."""
        with self._telling_states():
            async with self._engine.connect() as connection, connection.begin():
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is alone in writing from its start: what it reads stays true until it ends.

        Raises DatabaseUnavailable.
        """
        with self._telling_states():
            async with self._engine.connect() as connection, self._backend.writing(connection):
                yield connection

    @contextlib.contextmanager
    def _telling_states(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            if not self._backend.unavailable(error):
                raise
            self.failures += 1
            reason = str(getattr(error, "orig", None) or error)[:_REASON_LENGTH]
            raise DatabaseUnavailable(f"the database {self._backend.told} does not answer: {reason}") from error

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except SchemaTooNew as error:
            found = Unusable(str(error), "install that release again, or restore the database that belongs to this one")
            raise self._failed(found) from error
        except SchemaTooOld as error:
            raise self._failed(
                Unusable(str(error), "start the facade of this release once, or use the other")
            ) from error
        except Unusable as error:
            raise self._failed(error) from error
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise self._failed(self._backend.unusable(error)) from error

    def _failed(self, found: Unusable) -> StartupFailed:
        told = f"cannot use the database {self._backend.told}: {found.reason}; {found.remedy}"
        return StartupFailed(told, ExitCode(found.exit_code))
