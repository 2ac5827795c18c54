"""What is particular to a database in a file: its settings, and what is said when it cannot be used."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from facade.config import Database
from facade.startup import StartupFailed
from facade.store.engine import Store
from facade.store.failures import DatabaseUnavailable
from medforged.contract.exitcodes import ExitCode

pytestmark = pytest.mark.integration


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facade.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    made = Store.of(Database(url=f"sqlite+aiosqlite:///{path}"))
    await made.open()
    yield made
    await made.close()


async def refused(path: Path | str) -> StartupFailed:
    store = Store.of(Database(url=f"sqlite+aiosqlite:///{path}"))
    try:
        with pytest.raises(StartupFailed) as caught:
            await store.open()
    finally:
        await store.close()
    return caught.value


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 5000)]
)
async def test_settings_of_every_connection(store: Store, pragma: str, value: object) -> None:
    async with store.reading() as one, store.reading() as two:
        for connection in (one, two):
            assert (await connection.execute(text(f"PRAGMA {pragma}"))).scalar_one() == value


async def test_a_migration_that_fails_leaves_nothing_behind(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE logins (x)")
    connection.close()
    await refused(path)
    with sqlite3.connect(path) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert tables == {"logins"}


async def test_no_folder(tmp_path: Path) -> None:
    error = await refused(f"{tmp_path}/none/facade.db")
    assert error.exit_code is ExitCode.UNAVAILABLE
    assert str(error) == (
        f"cannot use the database {tmp_path}/none/facade.db: unable to open database file; "
        "its folder must exist and be writable for the facade's user"
    )


@pytest.fixture
def occupied(path: Path) -> None:
    path.write_text("something else entirely, and long enough to be looked at" * 100)


@pytest.mark.usefixtures("occupied")
async def test_not_a_database(path: Path) -> None:
    assert "file is not a database" in str(await refused(path))


async def test_a_database_that_cannot_be_written() -> None:
    assert (await refused("/dev/full")).exit_code is ExitCode.UNAVAILABLE


async def test_a_database_that_is_only_looked_for_is_not_made(path: Path, tmp_path: Path) -> None:
    store = Store.of(Database(url=f"sqlite+aiosqlite:///{path}"))
    with pytest.raises(StartupFailed, match="there is no such file") as caught:
        await store.find()
    assert caught.value.exit_code is ExitCode.NOT_FOUND
    await store.close()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240  # nothing else is on the loop


async def test_a_disk_that_is_full_is_told_apart_from_a_defect(store: Store) -> None:
    async def fill() -> None:
        async with store.writing() as connection:
            pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
            await connection.execute(text(f"PRAGMA max_page_count = {pages}"))
            await connection.execute(text("CREATE TABLE large AS SELECT zeroblob(1000000)"))

    with pytest.raises(DatabaseUnavailable, match="database or disk is full"):
        await fill()
    async with store.reading() as connection:
        with pytest.raises(OperationalError, match="no such table"):
            await connection.execute(text("SELECT 1 FROM absent"))
