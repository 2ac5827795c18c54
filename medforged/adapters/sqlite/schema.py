"""Owns the tables of the daemon's database as they are after the last migration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    text,
)

from medforged.domain.sessions import ACTIVE, SessionStatus, Tier

__all__ = ["ACTIVE_STATUSES", "UtcTime", "UuidText", "counter", "gpus", "metadata", "sessions"]

# "starting", "running", "stopping" in a fixed order, for constraints.
ACTIVE_STATUSES = tuple(status.value for status in SessionStatus if status in ACTIVE)
_ACTIVE_SQL = f"status IN ({', '.join(repr(status) for status in ACTIVE_STATUSES)})"


class UtcTime(TypeDecorator[datetime]):
    """An aware time as RFC 3339 text in UTC with microseconds, which sorts as it counts and can be read by people."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        del dialect
        return None if value is None else datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


class UuidText(TypeDecorator[UUID]):
    """A UUID in its usual form with dashes, as operators and logs write it."""

    impl = String(36)
    cache_ok = True

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:
        del dialect
        return None if value is None else UUID(value)


metadata = MetaData()

# One row: the identity of this database, and the daemon-wide change counter.
counter = Table(
    "counter",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("epoch", UuidText, nullable=False),
    Column("revision", Integer, nullable=False),
)

gpus = Table(
    "gpus",
    metadata,
    # Small integers that are never given to another device: AUTOINCREMENT is not needed, since rows are never deleted.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("uuid", String, nullable=False, unique=True),
    Column("device_index", Integer, nullable=False),
    Column("name", String, nullable=False),
    Column("pci_address", String, nullable=False),
    Column("memory_total_bytes", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("healthy", Boolean, nullable=False),
    Column("reason", String),
    Column("quarantine", String),
    Column("quarantine_session_id", UuidText),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", UuidText, primary_key=True),
    Column("user_id", UuidText, nullable=False),
    Column("tier", String, CheckConstraint(f"tier IN ({', '.join(repr(t.value) for t in Tier)})"), nullable=False),
    Column("pack_id", UuidText, nullable=False),
    Column(
        "status",
        String,
        CheckConstraint(f"status IN ({', '.join(repr(s.value) for s in SessionStatus)})"),
        nullable=False,
    ),
    Column("step", String, nullable=False, server_default="workspace"),
    Column("ending", String),
    Column("gpu_id", Integer, ForeignKey("gpus.id"), nullable=False),
    Column("slug", String(8), nullable=False, unique=True),
    Column("workspace_zfs", String, nullable=False),
    Column("container_id", String),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("stopped_at", UtcTime),
    Column("snapshot_at", UtcTime),
    Column("error_message", String),
    Column("revision", Integer, nullable=False, unique=True),
    # One active session per GPU is a constraint of the database, not a convention (contract.md section 3).
    Index("one_active_session_per_gpu", "gpu_id", unique=True, sqlite_where=text(_ACTIVE_SQL)),
    Index("sessions_active", "status", sqlite_where=text(_ACTIVE_SQL)),
    Index("sessions_newest_first", "created_at", "id"),
    Index("sessions_of_user_newest_first", "user_id", "created_at", "id"),
)
