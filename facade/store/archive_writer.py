"""Owns writing a backup: beside its place first, for its owner alone, and put there when the disk has given it back."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from facade.store.archive import Header, Seal, TableContent, TableEnd, TableStart, encode_row
from facade.store.archive_reader import ArchiveReader

__all__ = ["ArchiveWriter"]


class ArchiveWriter:
    """Writes a backup beside its place, readable for its owner alone, and puts it there when it is whole.

    To be used as a context, which removes what was written unless `finish` has been called. Raises OSError.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._digest = hashlib.sha256()
        self._header = header

    def __enter__(self) -> Self:
        self._write(msgspec.json.encode(self._header) + b"\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def start(self, table: str, columns: Sequence[str]) -> TableContent:
        self._write(msgspec.json.encode(TableStart(table, list(columns))) + b"\n")
        return TableContent(table, tuple(columns))

    def row(self, content: TableContent, values: Sequence[object]) -> None:
        line = encode_row(values)
        content.add(line)
        self._write(line)

    def end(self, content: TableContent) -> None:
        self._write(msgspec.json.encode(TableEnd(content.rows, content.sha256)) + b"\n")

    def finish(self) -> list[TableContent]:
        """Seal it, read it again from the disk, and put it in its place; what was there is replaced.

        Returns what is in it. Raises OSError, and Damaged when the disk does not give back what was written.
        """
        self._file.write(msgspec.json.encode(Seal(self._digest.hexdigest())) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with ArchiveReader.open(self._partial) as written:
            contents = written.verify()
        self._partial.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return contents

    def _write(self, line: bytes) -> None:
        self._digest.update(line)
        self._file.write(line)
