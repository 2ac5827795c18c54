"""The form of a backup: each bit of it counts, and nothing but a whole one is taken."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from facade.store.archive import FORMAT, VERSION, Damaged, Header, encode_row
from facade.store.archive_reader import ArchiveReader
from facade.store.archive_writer import ArchiveWriter

pytestmark = pytest.mark.unit

ROWS = ((1, "ä\n[", b"\x00\xff", None), (2, "{", b"", -1))


def header(**changes: object) -> Header:
    values: dict[str, object] = {
        "format": FORMAT,
        "version": VERSION,
        "schema": "0001",
        "created_at": "2026-01-01T00:00:00+00:00",
        "release": "0",
        "tables": ["things", "nothing"],
    }
    return msgspec.convert(values | changes, Header)


def write(path: Path, head: Header) -> None:
    with ArchiveWriter(path, head) as writer:
        for table, rows in (("things", ROWS), ("nothing", ())):
            content = writer.start(table, ["id", "text", "octets", "number"])
            for row in rows:
                writer.row(content, row)
            writer.end(content)
        writer.finish()


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    write(tmp_path / "backup", header())
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]
    return (tmp_path / "backup").read_bytes()


def damaged(data: bytes) -> bool:
    try:
        ArchiveReader(io.BytesIO(data)).verify()
    except Damaged:
        return True
    return False


def test_what_was_written_is_read(whole: bytes) -> None:
    reader = ArchiveReader(io.BytesIO(whole))
    assert [(content.table, list(rows)) for content, rows in reader.tables()] == [
        ("things", list(ROWS)),
        ("nothing", []),
    ]
    assert [(content.table, content.rows) for content in reader.verify()] == [("things", 2), ("nothing", 0)]


def test_each_bit_counts(whole: bytes) -> None:
    unseen = [
        (position, bit)
        for position in range(len(whole))
        for bit in range(8)
        if not damaged(whole[:position] + bytes([whole[position] ^ (1 << bit)]) + whole[position + 1 :])
    ]
    assert unseen == []
    assert not damaged(whole)


def test_each_byte_is_needed_and_no_other_is(whole: bytes) -> None:
    for position in range(len(whole)):
        assert damaged(whole[:position])
        assert damaged(whole[:position] + whole[position + 1 :])
    for more in (b"\n", b"\x00", whole):
        assert damaged(whole + more)
        assert damaged(more + whole) or more == b""


def test_lines_in_another_order(whole: bytes) -> None:
    lines = whole.splitlines(keepends=True)
    for position in range(len(lines) - 1):
        other = [*lines[:position], lines[position + 1], lines[position], *lines[position + 2 :]]
        assert damaged(b"".join(other))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is not a backup of medforge-facade"),
        (b"SQLite format 3\x00" + bytes(1000), "it is not a backup of medforge-facade"),
        (b'{"some":"json"}\n', "it is not a backup of medforge-facade"),
        (msgspec.json.encode(header(format="another")) + b"\n", "it is not a backup of medforge-facade"),
        (msgspec.json.encode(header(version=2)) + b"\n", "only another release knows version 2"),
    ],
)
def test_something_else(data: bytes, told: str) -> None:
    with pytest.raises(Damaged, match=told):
        ArchiveReader(io.BytesIO(data))


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("the one before")

    def break_off() -> None:
        with ArchiveWriter(tmp_path / "backup", header()) as writer:
            writer.start("things", ["id"])
            assert len(list(tmp_path.iterdir())) == 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]
    assert (tmp_path / "backup").read_text() == "the one before"


def test_values() -> None:
    assert msgspec.json.decode(encode_row([None, 1, True, "x", b"\x00"])) == [None, 1, 1, "x", {"base64": "AA=="}]
    with pytest.raises(TypeError, match="cannot keep a Decimal"):
        encode_row([Decimal(1)])
