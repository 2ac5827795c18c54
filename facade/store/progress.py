"""Owns going on with a migration that was interrupted where changes of the schema cannot be rolled back: on MariaDB.

Each statement of a migration is noted in a table of its own before and after it, and the notes of a migration end in
the transaction that records its revision. Whoever comes after a crash skips what has been done, and takes the error
"this exists already" for success in the one statement of which it cannot be known. That a statement is done as a
whole or not at all, whatever happens to the server, MariaDB promises since 10.6 (Atomic DDL). A migration for this has
to change things through `op`, and to rename nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from alembic.ddl.mysql import MySQLImpl
from sqlalchemy import Column, Integer, MetaData, Table, insert, inspect, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import UpdateBase

__all__ = ["PROGRESS", "Progress"]

_log = structlog.get_logger()

# How alembic is told of the progress.
PROGRESS = "medforge_progress"
_VERSION_TABLE = "alembic_version"
_notes = Table(
    "migration_progress",
    MetaData(),
    Column("done", Integer, primary_key=True, autoincrement=False),
    Column("begun", Integer, nullable=False),
)
# ER_TABLE_EXISTS_ERROR, ER_BAD_TABLE_ERROR, ER_DUP_FIELDNAME, ER_DUP_KEYNAME, ER_CANT_DROP_FIELD_OR_KEY,
# ER_DUP_CONSTRAINT_NAME.
_ALREADY = frozenset({1050, 1051, 1060, 1061, 1091, 1826})

R = TypeVar("R")


class Progress:
    """The statements of the migration in progress, on a connection that holds the schema's lock. Commits by itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        _notes.create(connection, checkfirst=True)
        if (noted := connection.execute(select(_notes)).one_or_none()) is None:
            connection.execute(insert(_notes).values(done=0, begun=0))
        self._done: int = noted.done if noted else 0
        self._begun: int = noted.begun if noted else 0
        self._step = 0
        connection.commit()
        if self._begun or self._done:
            _log.warning("database.migration_resumed", statements_done=self._done)

    def carry_out(self, construct: object, statement: Callable[[], R]) -> R | None:
        """Execute the migration's next statement, or skip it when it has been. Raises DBAPIError."""
        self._step += 1
        if self._step <= self._done:
            return None
        resumed = self._begun == self._step
        self._note(self._done, self._step)
        try:
            result = statement()
        except DBAPIError as error:
            if not (resumed and _code(error) in _ALREADY):
                self._connection.rollback()
                self._note(self._done, 0)
                raise
            result = None
        if _records_revision(construct):
            self._step = 0
        self._done = self._step
        self._note(self._done, 0)
        return result

    def end(self) -> None:
        """Everything is done: the notes go."""
        _notes.drop(self._connection)

    @staticmethod
    def left(connection: Connection) -> bool:
        """Whether there are notes that nobody has removed."""
        return inspect(connection).has_table(_notes.name)

    def _note(self, done: int, begun: int) -> None:
        self._connection.execute(update(_notes).values(done=done, begun=begun))
        self._connection.commit()


class _ResumableImpl(MySQLImpl):
    """Alembic finds this by its dialect; without a progress it is what it extends."""

    __dialect__ = "mysql"

    def _exec(self, construct: Any, *arguments: Any, **options: Any) -> Any:
        execute = super()._exec
        progress: Progress | None = self.context_opts.get(PROGRESS)
        if progress is None:
            return execute(construct, *arguments, **options)
        return progress.carry_out(construct, lambda: execute(construct, *arguments, **options))


def _records_revision(construct: object) -> bool:
    return isinstance(construct, UpdateBase) and getattr(construct.table, "name", "") == _VERSION_TABLE


def _code(error: DBAPIError) -> int:
    arguments = error.orig.args if error.orig is not None else ()
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0
