"""GPUs, sessions and the change counter.

Revision ID: 0001
Revises:
"""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ACTIVE = sa.text("status IN ('starting', 'running', 'stopping')")


def upgrade() -> None:
    counter = op.create_table(
        "counter",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
        sa.Column("epoch", sa.String(36), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.bulk_insert(counter, [{"id": 1, "epoch": str(uuid.uuid4()), "revision": 0}])
    op.create_table(
        "gpus",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("uuid", sa.String, nullable=False, unique=True),
        sa.Column("device_index", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("pci_address", sa.String, nullable=False),
        sa.Column("memory_total_bytes", sa.Integer, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("healthy", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("tier", sa.String, sa.CheckConstraint("tier IN ('public', 'private')"), nullable=False),
        sa.Column("pack_id", sa.String(36), nullable=False),
        sa.Column(
            "status",
            sa.String,
            sa.CheckConstraint("status IN ('starting', 'running', 'stopping', 'stopped', 'error')"),
            nullable=False,
        ),
        sa.Column("gpu_id", sa.Integer, sa.ForeignKey("gpus.id"), nullable=False),
        sa.Column("slug", sa.String(8), nullable=False, unique=True),
        sa.Column("workspace_zfs", sa.String, nullable=False),
        sa.Column("container_id", sa.String),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("started_at", sa.String(27)),
        sa.Column("stopped_at", sa.String(27)),
        sa.Column("snapshot_at", sa.String(27)),
        sa.Column("error_message", sa.String),
        sa.Column("revision", sa.Integer, nullable=False, unique=True),
    )
    op.create_index("one_active_session_per_gpu", "sessions", ["gpu_id"], unique=True, sqlite_where=_ACTIVE)
    op.create_index("sessions_active", "sessions", ["status"], sqlite_where=_ACTIVE)
    op.create_index("sessions_newest_first", "sessions", ["created_at", "id"])
    op.create_index("sessions_of_user_newest_first", "sessions", ["user_id", "created_at", "id"])


def downgrade() -> None:
    op.drop_table("sessions")
    op.drop_table("gpus")
    op.drop_table("counter")
