"""Alembic migrations of the facade's database: append only, never edited once released."""
