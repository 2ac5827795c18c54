"""The daemon's database: SQLAlchemy Core over aiosqlite, migrated by alembic."""

from medforged.adapters.sqlite.engine import open_database
from medforged.adapters.sqlite.state import SqliteState

__all__ = ["SqliteState", "open_database"]
