"""Owns bringing the database's schema up to date with the migrations that this package carries."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

__all__ = ["CONNECTION", "SchemaTooNew", "migrate"]

# Where migrations/env.py finds the open connection.
CONNECTION = "connection"
_MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaTooNew(Exception):
    """The database was made by a later release."""


def migrate(connection: Connection) -> None:
    """Run what has not run yet, within the connection's own transaction. Raises SchemaTooNew."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes[CONNECTION] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    present = set(MigrationContext.configure(connection).get_current_heads())
    if present - known:
        later = ", ".join(sorted(present - known))
        raise SchemaTooNew(f"only a later release knows revision {later} of its schema")
    command.upgrade(config, "head")
