"""API tokens, disabled accounts, and a count of each password's changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from facade.store.tables import DIGEST, ID, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "users",
        sa.Column("is_disabled", sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false()),
    )
    op.add_column("users", sa.Column("password_revision", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_users_created_at", "users", ["created_at", "id"])
    op.create_table(
        "api_tokens",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("token_digest", DIGEST, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scopes", sa.String(255), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("last_used_at", UtcDateTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.UniqueConstraint("token_digest", name="uq_api_tokens_token_digest"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_tokens_user_id", ondelete="CASCADE"),
    )
    op.create_index("ix_api_tokens_user_id", "api_tokens", ["user_id"])


def downgrade() -> None:
    op.drop_table("api_tokens")
    op.drop_index("ix_users_created_at", "users")
    op.drop_column("users", "password_revision")
    op.drop_column("users", "is_disabled")
