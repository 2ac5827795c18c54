"""Owns bringing the database's schema up to date with the migrations that this package carries."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

__all__ = [
    "CONNECTION",
    "OPTIONS",
    "SchemaTooNew",
    "SchemaTooOld",
    "behind",
    "head",
    "knows",
    "migrate",
    "require_head",
    "revision",
    "revisions",
]

# Where migrations/env.py finds the open connection, and what is said to alembic beside it.
CONNECTION = "connection"
OPTIONS = "options"
_MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaTooNew(Exception):
    """The database was made by a later release."""


class SchemaTooOld(Exception):
    """The database has not been brought up to date by this release."""


def head() -> str:
    """The revision of the schema that this release uses."""
    return str(_scripts().get_current_head())


def revisions() -> list[str]:
    """Every revision that this release has a migration to, the newest first."""
    return [script.revision for script in _scripts().walk_revisions()]


def knows(wanted: str) -> bool:
    """Whether this release has the migration that makes this revision."""
    return wanted in revisions()


def revision(connection: Connection) -> str | None:
    """The revision of the schema that the database has; None before its first migration."""
    return MigrationContext.configure(connection).get_current_revision()


def behind(connection: Connection) -> bool:
    """Whether there is something to migrate. Raises SchemaTooNew."""
    present = revision(connection)
    if present is not None and not knows(present):
        raise SchemaTooNew(f"only a later release knows revision {present} of its schema")
    return present != head()


def require_head(connection: Connection) -> None:
    """Raises SchemaTooNew, SchemaTooOld."""
    if behind(connection):
        raise SchemaTooOld(f"its schema has revision {revision(connection)} and this release's is {head()}")


def migrate(connection: Connection, to: str = "head", options: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Run what has not run yet on the connection, within its transaction; `options` are alembic's.

    Raises SchemaTooNew.
    """
    behind(connection)
    config = _config()
    config.attributes[CONNECTION] = connection
    config.attributes[OPTIONS] = options
    command.upgrade(config, to)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


@cache
def _scripts() -> ScriptDirectory:
    """Read once a process: they are part of the program."""
    return ScriptDirectory.from_config(_config())
