"""What is being done for a session, why it ends, and GPUs in quarantine.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("step", sa.String, nullable=False, server_default="workspace"))
    op.add_column("sessions", sa.Column("ending", sa.String))
    op.execute(
        "UPDATE sessions SET step = CASE status"
        " WHEN 'running' THEN 'serve' WHEN 'stopping' THEN 'stop' WHEN 'starting' THEN 'start' ELSE 'done' END"
    )
    # Until now a stop that had a message was the remainder of a create that could not be undone.
    op.execute(
        "UPDATE sessions SET ending = CASE WHEN error_message IS NULL THEN 'requested' ELSE 'create_failed' END"
        " WHERE status = 'stopping'"
    )
    op.add_column("gpus", sa.Column("quarantine", sa.String))
    op.add_column("gpus", sa.Column("quarantine_session_id", sa.String(36)))


def downgrade() -> None:
    op.drop_column("gpus", "quarantine_session_id")
    op.drop_column("gpus", "quarantine")
    op.drop_column("sessions", "ending")
    op.drop_column("sessions", "step")
