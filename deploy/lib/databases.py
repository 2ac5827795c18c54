"""Owns the copies of the databases that an upgrade makes, and putting them back.

A copy is taken between the end of the old program and the start of the new one; it is put back between the end of the
new one and the start of the old one, if the schema has been changed meanwhile. Run by systemd before the program, by a
drop-in that exists only during an upgrade: at that moment nobody else writes, and callers wait at the sockets. The
daemon's is handled by root, the facade's by the facade, so that root neither parses what the facade has written nor
removes anything in a folder where the facade may have put a link.

    databases.py take|put-back DATABASE FOLDER
    databases.py back-up PROGRAM FOLDER

The second is for accounts in a database server: PROGRAM is the facade that ends, and makes a backup as it always does.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from common import Failure, fail

_NONE = "none"
_KEPT = 5
# `<time in UTC>-before-<release>`: in the order of their names.
_NAME = re.compile(r"\d{8}T\d{6}Z-before-.+")


def take(database: Path, folder: Path) -> None:
    """Copy the database, once: a program that is started again and again finds the copy of before its first start."""
    marker = folder / "schema"
    if marker.exists():
        return
    _make_room(folder)
    schema = _NONE
    if database.exists():
        _copy(database, folder / database.name)
        schema = _schema(database)
    marker.write_text(f"{schema}\n")


def back_up(program: Path, folder: Path) -> None:
    """Let a program write a backup, once. Raises Failure."""
    backup = folder / "accounts.backup"
    if backup.exists():
        return
    _make_room(folder)
    done = subprocess.run(
        [program, "backup", backup], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise Failure(f"cannot back up the accounts: {(done.stderr or done.stdout).strip()}", 1)


def put_back(database: Path, folder: Path) -> None:
    """Put the copy in the place of a database whose schema has been changed; another one stays, with what it has."""
    marker = folder / "schema"
    if not marker.exists() or not database.exists():
        return
    before = marker.read_text().strip()
    if _schema(database) == before:
        return
    # Kept: it has what happened under the release that is gone back from. Reading it as its only reader also ends its
    # log, of which nothing may be left beside another database.
    _copy(database, folder / f"{database.name}.later")
    if before == _NONE:
        database.unlink()
        return
    # In one step: a program that starts in between, after a power cut, finds one of the two and never none.
    part = database.with_name(f"{database.name}.part")
    _copy(folder / database.name, part)
    part.replace(database)


def _make_room(folder: Path) -> None:
    """Make the folder of an upgrade, and forget the oldest of those beside it: with it, five are kept."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    others = sorted(path for path in folder.parent.iterdir() if path != folder and _NAME.fullmatch(path.name))
    for old in others[: -(_KEPT - 1)]:
        # What cannot be removed is no reason not to start.
        shutil.rmtree(old, ignore_errors=True)


def _copy(database: Path, target: Path) -> None:
    """A sound copy, for its owner alone. Raises Failure."""
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    with _opened(database) as source, _opened(target) as kept:
        source.backup(kept)
        fault = kept.execute("PRAGMA integrity_check").fetchone()[0]
    if fault != "ok":
        raise Failure(f"the copy of {database} is not sound ({fault}); restore a backup first", 1)


def _opened(path: Path) -> contextlib.closing[sqlite3.Connection]:
    """One that is there: SQLite would make an empty one in the place of one that is missing, without a word."""
    return contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True))


def _schema(database: Path) -> str:
    with _opened(database) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            return _NONE
    return str(row[0]) if row else _NONE


def main() -> None:
    match sys.argv[1:]:
        case ["take", database, folder]:
            take(Path(database), Path(folder))
        case ["put-back", database, folder]:
            put_back(Path(database), Path(folder))
        case ["back-up", program, folder]:
            back_up(Path(program), Path(folder))
        case _:
            raise Failure("use databases.py take|put-back DATABASE FOLDER, or back-up PROGRAM FOLDER", 2)


if __name__ == "__main__":
    try:
        main()
    except Failure as error:
        fail(error)
    except (OSError, sqlite3.Error) as error:
        fail(Failure(f"cannot copy the database: {error}", 1))
