"""Owns how alembic runs the daemon's migrations: over the one connection that the engine module hands in."""

from alembic import context

from medforged.adapters.sqlite.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
