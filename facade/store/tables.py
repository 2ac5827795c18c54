"""Owns the tables of the facade's database; every change of them is a migration beside this file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    Uuid,
    false,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = [
    "DIGEST",
    "ID",
    "UtcDateTime",
    "api_tokens",
    "login_revisions",
    "logins",
    "metadata",
    "octets",
    "secrets",
    "users",
]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC with microseconds; databases keep it without its zone."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  # the base class's signature
        return value.astimezone(UTC).replace(tzinfo=None) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  # the base class's signature
        return value.replace(tzinfo=UTC) if value is not None else None


# MariaDB has a type of its own from 10.7 on, and the driver goes by the server: tables made by an older one would
# not be understood after its update.
ID = Uuid(native_uuid=False)


def octets(length: int) -> TypeEngine[bytes]:
    """Bytes, so many at most. MariaDB has no index over the type that it would take for them otherwise."""
    return LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb")


DIGEST = octets(32)
"""SHA-256."""

# `password_revision` counts changes of the password, so that what was checked against an earlier one does not count.
users = Table(
    "users",
    metadata,
    Column("id", ID, primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("password_hash", String(255), nullable=False),
    Column("is_admin", Boolean(create_constraint=False), nullable=False),
    Column("max_concurrent_sessions", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("is_disabled", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Column("password_revision", Integer, nullable=False, server_default="0"),
    Index("ix_users_created_at", "created_at", "id"),
)

# One row a signed-in browser or program; a login that has ended has no row.
logins = Table(
    "logins",
    metadata,
    Column("token_digest", DIGEST, primary_key=True),
    Column("user_id", ID, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime, nullable=False),
    Index("ix_logins_user_id", "user_id"),
)

# One row an API token; one that was revoked has none. `scopes` are separated by spaces.
api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", ID, primary_key=True),
    Column("user_id", ID, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("token_digest", DIGEST, nullable=False),
    Column("name", String(100), nullable=False),
    Column("scopes", String(255), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime, nullable=True),
    UniqueConstraint("token_digest"),
    Index("ix_api_tokens_user_id", "user_id"),
)

# One row, whose number grows with every change that ends or alters logins, API tokens or whose they are, so that
# processes which remember verified ones learn with one small query that they have to forget them.
login_revisions = Table(
    "login_revisions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
)

# Keys of the facade's own making, by what they are for.
secrets = Table(
    "secrets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", octets(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
