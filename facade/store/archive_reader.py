"""Owns reading a backup, and noticing each change of it: nothing is believed that has not been read to its end."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec

from facade.store.archive import FORMAT, VERSION, Damaged, Header, Seal, TableContent, TableEnd, TableStart, decoded

__all__ = ["ArchiveReader"]

_LONGEST_LINE = 16 * 1024 * 1024


class ArchiveReader:
    """Reads a backup, of which nothing is believed before `verify` has read all of it. Raises OSError, Damaged."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.header = self._header()

    @classmethod
    def open(cls, path: Path) -> Self:
        """To be closed, or used as a context."""
        file = path.open("rb")
        try:
            return cls(file)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def verify(self) -> list[TableContent]:
        """Read it to its end. Returns what is in it. Raises Damaged."""
        contents = []
        for content, rows in self.tables():
            for _ in rows:
                pass
            contents.append(content)
        return contents

    def tables(self) -> Iterator[tuple[TableContent, Iterator[tuple[object, ...]]]]:
        """Each table with its rows, which are to be taken before the next table. Raises Damaged, at last at its end."""
        self._file.seek(0)
        digest = hashlib.sha256(self._line())
        for name in self.header.tables:
            line = self._line()
            digest.update(line)
            start = _struct(line, TableStart)
            if start.table != name:
                raise Damaged(f"the table {name} is missing")
            content = TableContent(name, tuple(start.columns))
            ends: list[TableEnd] = []
            rows = self._rows(content, digest, ends)
            yield content, rows
            for _ in rows:
                pass
            if (ends[0].rows, ends[0].sha256) != (content.rows, content.sha256):
                raise Damaged(f"the rows of {name} are not those that were written")
        line = self._line()
        if line != msgspec.json.encode(Seal(digest.hexdigest())) + b"\n" or self._file.read(1):
            raise Damaged("its checksum is wrong")

    def _rows(self, content: TableContent, digest: Any, ends: list[TableEnd]) -> Iterator[tuple[object, ...]]:
        while True:
            line = self._line()
            digest.update(line)
            if not line.startswith(b"["):
                ends.append(_struct(line, TableEnd))
                return
            content.add(line)
            values = _struct(line, list[Any])
            if len(values) != len(content.columns):
                raise Damaged(f"a row of {content.table} has another number of values")
            with _damage():
                row = tuple(map(decoded, values))
            yield row

    def _header(self) -> Header:
        try:
            header: Header = _struct(self._line(), Header)
        except Damaged:
            raise Damaged("it is not a backup of medforge-facade") from None
        if header.format != FORMAT:
            raise Damaged("it is not a backup of medforge-facade")
        if header.version != VERSION:
            raise Damaged(f"only another release knows version {header.version} of the form of backups")
        return header

    def _line(self) -> bytes:
        line = self._file.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise Damaged("it ends too early")
        return line


def _struct(line: bytes, type_: Any) -> Any:
    with _damage():
        return msgspec.json.decode(line, type=type_)


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise Damaged("a line of it cannot be read") from error
