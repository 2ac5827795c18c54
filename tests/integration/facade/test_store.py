"""The facade's database: its settings, its migrations, its transactions, and what is said when it cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from facade.startup import StartupFailed
from facade.store.engine import Store
from facade.store.tables import metadata
from facade.store.users import User, Users
from medforged.contract.exitcodes import ExitCode

pytestmark = pytest.mark.integration


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facade.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    made = Store(f"sqlite+aiosqlite:///{path}")
    await made.open()
    yield made
    await made.close()


async def refused(url: str) -> StartupFailed:
    store = Store(url)
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


async def test_migrations_make_what_the_tables_say(store: Store) -> None:
    def difference(connection: Connection) -> Any:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    async with store.reading() as connection:
        assert await connection.run_sync(difference) == []
        schema = (await connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'logins'"))).scalar_one()
    assert "ON DELETE CASCADE" in schema


async def test_opening_again_changes_nothing(path: Path, store: Store) -> None:
    again = Store(f"sqlite+aiosqlite:///{path}")
    await again.open()
    await again.close()
    async with store.reading() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == "0003"
        assert (await connection.execute(text("SELECT id, revision FROM login_revisions"))).all() == [(1, 0)]


async def test_several_processes_can_start_at_once(path: Path) -> None:
    stores = [Store(f"sqlite+aiosqlite:///{path}") for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        await store.close()


async def test_a_migration_that_fails_leaves_nothing_behind(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE logins (x)")
    connection.close()
    await refused(f"sqlite+aiosqlite:///{path}")
    with sqlite3.connect(path) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert tables == {"logins"}


async def test_a_schema_of_a_later_release(path: Path, store: Store) -> None:
    async with store.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    error = await refused(f"sqlite+aiosqlite:///{path}")
    assert error.exit_code is ExitCode.CONFIG
    assert "only a later release knows revision 9999" in str(error)


async def test_no_folder(tmp_path: Path) -> None:
    error = await refused(f"sqlite+aiosqlite:///{tmp_path}/none/facade.db")
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
    assert "file is not a database" in str(await refused(f"sqlite+aiosqlite:///{path}"))


async def test_writers_wait_for_each_other_also_when_they_read_first(store: Store) -> None:
    """With deferred transactions, all but one of these would fail with "database is locked"."""

    async def increment() -> None:
        async with store.writing() as connection:
            revision = (await connection.execute(text("SELECT revision FROM login_revisions"))).scalar_one()
            await asyncio.sleep(0.001)
            await connection.execute(text("UPDATE login_revisions SET revision = :new"), {"new": revision + 1})

    await asyncio.gather(*(increment() for _ in range(20)))
    async with store.reading() as connection:
        assert (await connection.execute(text("SELECT revision FROM login_revisions"))).scalar_one() == 20


async def test_an_error_rolls_back(store: Store) -> None:
    async def break_off() -> None:
        async with store.writing() as connection:
            await connection.execute(text("UPDATE login_revisions SET revision = 9"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await break_off()
    async with store.reading() as connection:
        assert (await connection.execute(text("SELECT revision FROM login_revisions"))).scalar_one() == 0


async def test_users_come_back_as_they_were(store: Store) -> None:
    users = Users(store)
    user = User(uuid4(), "a@example.org", "hash", True, 3, datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC))
    await users.add(user)
    assert await users.by_email("a@example.org") == user
    assert await users.by_id(user.id) == user
    assert await users.by_email("A@example.org") is None


async def test_a_login_needs_a_user(store: Store) -> None:
    with pytest.raises(IntegrityError):
        async with store.writing() as connection:
            await connection.execute(
                text("INSERT INTO logins VALUES (:digest, :user, '2026-01-01', '2026-01-01')"),
                {"digest": b"x", "user": uuid4().hex},
            )


async def test_a_database_that_cannot_be_written(tmp_path: Path) -> None:
    error = await refused("sqlite+aiosqlite:////dev/full")
    assert error.exit_code is ExitCode.UNAVAILABLE
