"""Owns what is looked at from outside: the records, and what is on the host, at one moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from medforged.domain.containers import container_name

__all__ = ["NOBODY", "Container", "Dataset", "Device", "Record", "World", "read_devices", "read_records", "rows"]

# Whose workspaces and containers no record explains.
NOBODY = UUID(int=9, version=4)

_ACTIVE = frozenset({"starting", "running", "stopping"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Record:
    """A session's row. `snapshot_ms` is the time that names its final snapshot."""

    id: UUID
    slug: str
    status: str
    step: str
    ending: str | None
    gpu_id: int
    container_id: str | None
    workspace: str
    started_at: str | None = None
    stopped_at: str | None = None
    snapshot_ms: int | None = None
    error_message: str | None = None

    @property
    def active(self) -> bool:
        return self.status in _ACTIVE

    @property
    def container_name(self) -> str:
        return container_name(self.slug)


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU's row, and the processes that its driver shows on it."""

    id: int
    uuid: str
    enabled: bool = True
    healthy: bool = True
    reason: str | None = None
    quarantine: str | None = None
    quarantine_session_id: UUID | None = None
    processes: tuple[int, ...] = ()

    @property
    def usable(self) -> bool:
        return self.enabled and self.healthy and self.quarantine is None


@dataclass(frozen=True, slots=True)
class Container:
    """A container of this installation. `isolated`: the port through which it is attached is kept apart."""

    name: str
    id: str
    session_id: UUID | None
    running: bool
    isolated: bool


@dataclass(frozen=True, slots=True)
class Dataset:
    """A workspace, and the names of its snapshots from the oldest. `files`: there is something in it; `mounted`: it is
    where its container looks for it."""

    name: str
    session_id: UUID | None
    snapshots: tuple[str, ...] = ()
    files: bool = False
    mounted: bool = True


@dataclass(frozen=True, slots=True)
class World:
    """Everything. `rules`: the packet filter's rules are in place; `strays`: ports and rules that lead nowhere.

    `tolerated` are names of what no record explained before the daemon did anything.
    """

    records: tuple[Record, ...] = ()
    devices: tuple[Device, ...] = ()
    containers: tuple[Container, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    rules: bool = True
    strays: tuple[str, ...] = ()
    tolerated: frozenset[str] = frozenset()

    @property
    def active(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.active)

    def record(self, session_id: UUID | None) -> Record | None:
        return next((record for record in self.records if record.id == session_id), None)

    def container(self, name: str) -> Container | None:
        return next((container for container in self.containers if container.name == name), None)

    def dataset(self, name: str) -> Dataset | None:
        return next((dataset for dataset in self.datasets if dataset.name == name), None)

    @property
    def strangers(self) -> frozenset[str]:
        """The names of what no record explains."""
        known = {record.id for record in self.records}
        return frozenset(
            [container.name for container in self.containers if container.session_id not in known]
            + [dataset.name for dataset in self.datasets if dataset.session_id not in known]
            + list(self.strays)
        )


def rows(directory: Path, table: str, order: str) -> list[dict[str, Any]]:
    """A table of the daemon's database as it is, whoever has it open; nothing is changed by looking."""
    path = directory / "medforged.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY {order}")]


def read_records(directory: Path) -> tuple[Record, ...]:
    """Every session's row, from the oldest."""
    return tuple(
        Record(
            id=UUID(row["id"]),
            slug=row["slug"],
            status=row["status"],
            step=row["step"],
            ending=row["ending"],
            gpu_id=row["gpu_id"],
            container_id=row["container_id"],
            workspace=row["workspace_zfs"],
            started_at=row["started_at"],
            stopped_at=row["stopped_at"],
            snapshot_ms=_milliseconds(row["snapshot_at"]),
            error_message=row["error_message"],
        )
        for row in rows(directory, "sessions", "created_at")
    )


def read_devices(directory: Path, processes: Mapping[str, tuple[int, ...]]) -> tuple[Device, ...]:
    """Every GPU's row, with the processes on it by its UUID."""
    return tuple(
        Device(
            id=row["id"],
            uuid=row["uuid"],
            enabled=bool(row["enabled"]),
            healthy=bool(row["healthy"]),
            reason=row["reason"],
            quarantine=row["quarantine"],
            quarantine_session_id=UUID(row["quarantine_session_id"]) if row["quarantine_session_id"] else None,
            processes=processes.get(row["uuid"], ()),
        )
        for row in rows(directory, "gpus", "id")
    )


def _milliseconds(text: str | None) -> int | None:
    if text is None:
        return None
    at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC) - _EPOCH
    return at.days * 86_400_000 + at.seconds * 1000 + at.microseconds // 1000
