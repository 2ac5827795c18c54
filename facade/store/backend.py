"""Owns what the store needs from a kind of database: opening, transactions, and what its errors mean."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from facade.store.failures import Unusable

__all__ = ["BUSY_SECONDS", "Backend"]

# How long a transaction waits for one that writes, and a request for a free connection.
BUSY_SECONDS = 5.0


class Backend(Protocol):
    """One kind of database, at one place."""

    @property
    def told(self) -> str:
        """Which database this is, for messages; without a password."""
        ...

    def engine(self, connections: int) -> AsyncEngine:
        """The pool of connections that transactions use."""
        ...

    async def prepare(self) -> None:
        """Make sure that there is a database to connect to. Raises Unusable, SQLAlchemyError, sqlite3.Error."""
        ...

    async def find(self) -> None:
        """As `prepare`, but nothing is made. Raises Unusable, SQLAlchemyError, sqlite3.Error."""
        ...

    def writing(self, connection: AsyncConnection) -> AbstractAsyncContextManager[None]:
        """A transaction on the connection that is alone in writing from its start to its end."""
        ...

    def migrating(self, engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection that is alone in changing the schema. What it has not committed at the end, is committed."""
        ...

    def migrate(self, connection: Connection) -> None:
        """Bring the schema up to date. Raises SchemaTooNew."""
        ...

    async def check_tables(self, connection: AsyncConnection) -> None:
        """See that the tables keep values as they were given. Raises Unusable."""
        ...

    async def faults(self, connection: AsyncConnection, tables: list[str]) -> list[str]:
        """What the database itself finds wrong with the tables' storage, a sentence each."""
        ...

    def unavailable(self, error: Exception) -> bool:
        """Whether the error is the database's state, and not a defect of ours or a value that it refuses."""
        ...

    def unusable(self, error: Exception) -> Unusable:
        """Why an error of opening means that the database cannot be used, and what to do about it."""
        ...
