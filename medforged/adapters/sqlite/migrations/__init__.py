"""Alembic's environment and the history of the daemon's schema; versions are only ever added."""
