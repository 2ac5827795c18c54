"""Owns reading the tables that `zfs … -H` and `zpool … -H` print: tab-separated, one row a line. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["PoolState", "SnapshotEntry", "rows", "snapshot_entries"]


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool as `zpool list` shows it."""

    name: str
    health: str

    @property
    def usable(self) -> bool:
        """Whether datasets of it can be written; a degraded pool has lost redundancy, not data."""
        return self.health in {"ONLINE", "DEGRADED"}


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """A snapshot of one dataset: the name after `@`, and when it was made, in the whole seconds that ZFS keeps."""

    name: str
    created_at: datetime
    transaction_group: int

    @classmethod
    def made(cls, name: str, creation: int, transaction_group: int) -> SnapshotEntry:
        return cls(name, datetime.fromtimestamp(creation, UTC), transaction_group)


def rows(text: str) -> list[tuple[str, ...]]:
    """The table's cells; empty lines are none."""
    return [tuple(line.split("\t")) for line in text.splitlines() if line]


def snapshot_entries(dataset: str, table: Iterable[tuple[str, ...]]) -> list[SnapshotEntry]:
    """Snapshots of `dataset` from rows (name, property, value) of `creation` and `createtxg`, oldest first.

    The order is that of the transaction groups: several snapshots can be made within the second that `creation` has.
    Rows of the dataset itself, of its children and of bookmarks are left out.
    """
    found: dict[str, dict[str, int]] = {}
    for name, prop, value in table:
        holder, at, snapshot = name.partition("@")
        if at and holder == dataset:
            found.setdefault(snapshot, {})[prop] = int(value)
    entries = [SnapshotEntry.made(name, of["creation"], of["createtxg"]) for name, of in found.items()]
    return sorted(entries, key=lambda entry: (entry.transaction_group, entry.name))
