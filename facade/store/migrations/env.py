"""Run by alembic: applies migrations on the connection that `facade.store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from facade.store.migrate import CONNECTION, OPTIONS
from facade.store.tables import metadata

context.configure(
    connection=context.config.attributes[CONNECTION],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
    **context.config.attributes[OPTIONS],
)
with context.begin_transaction():
    context.run_migrations()
