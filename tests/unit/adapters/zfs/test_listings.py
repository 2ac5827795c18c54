"""Tables that `zfs` and `zpool` print."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from medforged.adapters.zfs.listings import PoolState, rows, snapshot_entries

pytestmark = pytest.mark.unit


def test_rows() -> None:
    assert rows("a\tb\nc\td e\n\n") == [("a", "b"), ("c", "d e")]
    assert rows("") == []


def test_snapshots_by_transaction_group_and_without_anything_else() -> None:
    table = rows(
        "tank/w\tcreation\t1\ntank/w\tcreatetxg\t2\n"
        "tank/w@stop-9\tcreation\t1771304304\ntank/w@stop-9\tcreatetxg\t9\n"
        "tank/w@stop-10\tcreation\t1771304304\ntank/w@stop-10\tcreatetxg\t10\n"
        "tank/w@death-1\tcreation\t1771304300\ntank/w@death-1\tcreatetxg\t8\n"
        "tank/w#mark\tcreation\t1\ntank/w#mark\tcreatetxg\t1\n"
        "tank/w/child\tcreation\t1\ntank/w/child\tcreatetxg\t1\n"
        "tank/w/child@x\tcreation\t1\ntank/w/child@x\tcreatetxg\t1\n"
    )
    entries = snapshot_entries("tank/w", table)
    assert [entry.name for entry in entries] == ["death-1", "stop-9", "stop-10"]
    assert entries[1].created_at == datetime(2026, 2, 17, 4, 58, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("health", "usable"), [("ONLINE", True), ("DEGRADED", True), ("FAULTED", False), ("SUSPENDED", False)]
)
def test_pools_that_can_be_written(health: str, usable: bool) -> None:
    assert PoolState("tank", health).usable is usable
