"""A backup: that everything is in it, that it goes into both databases, and that each change of it is noticed."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import create_async_engine

from facade.config import Database, Settings
from facade.store.archive import FORMAT, VERSION, Damaged, Header, TableContent
from facade.store.archive_reader import ArchiveReader
from facade.store.archive_writer import ArchiveWriter
from facade.store.backup import back_up
from facade.store.content import columns_of, content_of, rows_of, tables_in
from facade.store.engine import Store
from facade.store.integrity import faults
from facade.store.migrate import SchemaTooNew, head, migrate, revisions
from facade.store.restore import NotEmpty, restore
from facade.store.tables import login_revisions, metadata
from facade.store.tables import logins as logins_table
from facade.store.users import User, Users
from tests.integration.facade.conftest import EVERY_DATABASE, Api
from tests.integration.facade.samples import REVISION, fill

pytestmark = pytest.mark.integration

Opened = Callable[[str], Awaitable[Store]]


@pytest.fixture
async def database(request: pytest.FixtureRequest, new_database: Callable[[str], Awaitable[str]]) -> str:
    """One of its own for every test, without tables."""
    return await new_database(request.param)


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    made: list[Store] = []

    async def make(url: str) -> Store:
        made.append(Store.of(Database(url=url)))
        await made[-1].open()
        return made[-1]

    yield make
    for store in made:
        await store.close()


@pytest.fixture
async def store(database: str, opened: Opened) -> Store:
    return await opened(database)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "facade.backup"


async def contents(store: Store) -> dict[str, tuple[int, str]]:
    """How many rows each table has, and a digest of them; but for the revision, which only moves."""
    found = {}
    async with store.reading() as connection:
        for table in metadata.sorted_tables:
            if table is not login_revisions:
                content = await content_of(connection, table.name, [column.name for column in table.columns])
                found[table.name] = (content.rows, content.sha256)
    return found


async def revision(store: Store) -> int:
    async with store.reading() as connection:
        return int((await connection.execute(text("SELECT revision FROM login_revisions"))).scalar_one())


def read(file: Path) -> list[TableContent]:
    with ArchiveReader.open(file) as archive:
        return archive.verify()


@pytest.mark.parametrize("target", EVERY_DATABASE)
async def test_everything_comes_back_in_either_database(
    store: Store, file: Path, target: str, new_database: Callable[[str], Awaitable[str]], opened: Opened
) -> None:
    await fill(store)
    before = await contents(store)
    assert {name for name, (rows, _) in before.items() if rows > 1} == set(metadata.tables) - {login_revisions.name}
    await back_up(store, file)
    assert {content.table for content in read(file)} == set(metadata.tables)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600  # noqa: ASYNC240  # nothing else is on the loop
    assert [path.name for path in file.parent.glob("*backup*")] == [file.name]

    other = await opened(await new_database(target))
    await restore(other, file, force=False)
    assert await contents(other) == before
    assert await revision(other) == REVISION + 1
    assert await faults(other) == []


async def test_a_backup_has_one_state_although_the_facade_goes_on(store: Store, file: Path) -> None:
    """Each transaction adds a user and a login; a backup that saw half of one would have more of one than of the other."""
    going, began = True, asyncio.Event()

    async def work() -> None:
        while going:
            user_id, now = uuid4(), datetime.now(UTC)
            async with store.writing() as connection:
                values = {"id": user_id, "email": f"{user_id}@example.org", "password_hash": "-", "is_admin": False}
                more = {"max_concurrent_sessions": 1, "created_at": now}
                await connection.execute(insert(metadata.tables["users"]).values(**values, **more))
                login = {"token_digest": user_id.bytes * 2, "user_id": user_id, "created_at": now, "last_used_at": now}
                await connection.execute(insert(logins_table).values(login))
            began.set()

    working = asyncio.create_task(work())
    await began.wait()
    for number in range(5):
        found = {content.table: content.rows for content in await back_up(store, file.with_suffix(f".{number}"))}
        assert found["users"] == found["logins"] > 0
    going = False
    await working


async def test_what_has_been_damaged_changes_nothing(store: Store, file: Path) -> None:
    await back_up(store, file)
    await fill(store)
    before, at = await contents(store), await revision(store)
    whole = file.read_bytes()  # noqa: ASYNC240  # nothing else is on the loop
    file.write_bytes(whole.replace(b"alembic", b"") + b" ")  # noqa: ASYNC240
    with pytest.raises(Damaged):
        await restore(store, file, force=True)
    assert (await contents(store), await revision(store)) == (before, at)


async def test_a_database_that_holds_something_is_replaced_by_force_only(store: Store, file: Path) -> None:
    await Users(store).add(User(uuid4(), "before@example.org", "hash", False, 1, datetime.now(UTC)))
    await back_up(store, file)
    before = await contents(store)
    await fill(store)
    later = await contents(store)
    with pytest.raises(NotEmpty):
        await restore(store, file, force=False)
    assert (await contents(store), await revision(store)) == (later, REVISION)
    await restore(store, file, force=True)
    assert (await contents(store), await revision(store)) == (before, REVISION + 1)
    await restore(store, file, force=True)
    assert (await contents(store), await revision(store)) == (before, REVISION + 2)


def written(file: Path, schema: str, **tables: tuple[list[str], list[list[object]]]) -> None:
    """A whole backup of whatever is in it."""
    header = Header(
        format=FORMAT,
        version=VERSION,
        schema=schema,
        created_at="2026-01-01T00:00:00+00:00",
        release="0",
        tables=list(tables),
    )
    with ArchiveWriter(file, header) as writer:
        for name, (columns, rows) in tables.items():
            content = writer.start(name, columns)
            for row in rows:
                writer.row(content, row)
            writer.end(content)
        writer.finish()


async def test_a_backup_of_a_later_release(store: Store, file: Path) -> None:
    written(file, "9999", users=(["id"], []))
    with pytest.raises(SchemaTooNew, match="only a later release knows revision 9999"):
        await restore(store, file, force=True)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"users": (["id"], [])}, "its tables are not those of its schema"),
        ({name: (["x"], []) for name in metadata.tables}, "the columns of .* are not those of its schema"),
    ],
)
async def test_a_backup_that_was_made_by_hand(
    store: Store, file: Path, tables: dict[str, tuple[list[str], list[list[object]]]], told: str
) -> None:
    written(file, head(), **tables)
    with pytest.raises(Damaged, match=told):
        await restore(store, file, force=True)


async def test_rows_that_contradict_each_other(store: Store, file: Path) -> None:
    await fill(store)
    await back_up(store, file)
    before = await contents(store)
    with ArchiveReader.open(file) as archive:
        tables = {
            content.table: (list(content.columns), [list(row) for row in rows]) for content, rows in archive.tables()
        }
    tables["users"][1].pop()
    changed = file.with_suffix(".changed")
    written(changed, head(), **tables)
    with pytest.raises(Damaged, match="contradict"):
        await restore(store, changed, force=True)
    assert await contents(store) == before


@pytest.mark.parametrize("older", revisions())
async def test_backups_of_every_older_schema_are_brought_up_to_date(
    store: Store, file: Path, older: str, tmp_path: Path, opened: Opened
) -> None:
    """Made as that release would have made it: from its tables, which its migrations know."""
    old = Store.of(Database(url=f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"))
    await old.prepare()
    user_id, login = uuid4(), bytes(range(32))
    async with old.writing() as connection:
        await connection.run_sync(migrate, older)
        now = "2026-02-03 04:05:06.000789"
        await connection.execute(
            text(
                "INSERT INTO users (id, email, password_hash, is_admin, max_concurrent_sessions, created_at)"
                " VALUES (:id, 'a@example.org', 'hash', 1, 3, :now)"
            ),
            {"id": user_id.hex, "now": now},
        )
        await connection.execute(
            text(
                "INSERT INTO logins (token_digest, user_id, created_at, last_used_at) VALUES (:digest, :id, :now, :now)"
            ),
            {"digest": login, "id": user_id.hex, "now": now},
        )
        await connection.execute(text("UPDATE login_revisions SET revision = 7"))
        tables = {}
        for name in await connection.run_sync(tables_in):
            columns, key = await connection.run_sync(columns_of, name)
            tables[name] = (columns, [list(row) async for row in rows_of(connection, name, columns, key)])
    await old.close()
    written(file, older, **tables)

    await restore(store, file, force=False)
    found = await Users(store).by_email("a@example.org")
    assert found is not None
    assert (found.id, found.is_admin, found.max_concurrent_sessions) == (user_id, True, 3)
    assert found.created_at == datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    async with store.reading() as connection:
        assert (await connection.execute(logins_table.select())).one().token_digest == login
    assert await revision(store) == 8
    assert await faults(store) == []


async def test_a_running_facade_goes_on_with_what_was_restored(
    settings: Settings, api: Api, opened: Opened, file: Path
) -> None:
    """Who signed in after the backup is out, who signed out after it is in again; nothing is remembered."""
    await_out, stays = await api.person(), await api.person()
    other = await opened(settings.database.url)
    await back_up(other, file)
    newcomer = await api.person()
    await api.post("/api/v1/auth/logout", token=await_out.token)
    statuses = [(await api.get("/api/v1/me", token=each.token)).status for each in (await_out, stays, newcomer)]
    assert statuses == [401, 200, 200]
    await restore(other, file, force=True)
    while [(await api.get("/api/v1/me", token=each.token)).status for each in (await_out, stays, newcomer)] != [
        200,
        200,
        401,
    ]:
        pass


async def test_a_database_with_faults_is_seen(store: Store, database: str) -> None:
    await fill(store)
    assert await faults(store) == []
    sqlite = database.startswith("sqlite")
    # The one way past the references, by somebody else's hand.
    off = "PRAGMA foreign_keys = OFF" if sqlite else "SET SESSION foreign_key_checks = 0"
    raw = create_async_engine(database)
    async with raw.connect() as connection:
        await connection.execute(text(off))
        await connection.execute(text("DELETE FROM users WHERE email LIKE '%ä%'"))
        await connection.commit()
    await raw.dispose()
    found = await faults(store)
    assert {fault for fault in found if "do not exist" in fault} == {
        f"{table.name} has 1 rows whose users do not exist"
        for table in metadata.sorted_tables
        if table.foreign_key_constraints
    }
    async with store.writing() as connection:
        await connection.execute(text("ALTER TABLE users ADD COLUMN surprise INTEGER"))
        await connection.execute(text("DELETE FROM login_revisions"))
    found = await faults(store)
    assert "its schema is not this release's: remove_column None users surprise" in found
    assert "login_revisions has 0 rows instead of one" in found


async def test_a_file_with_faults_is_seen(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "facade.db"
    store = await opened(f"sqlite+aiosqlite:///{path}")
    await fill(store, 500)
    async with store.reading() as connection:
        await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    await store.close()
    damaged = bytearray(path.read_bytes())  # nothing else is on the loop
    for page in range(10, len(damaged) // 4096, 3):
        damaged[page * 4096 + 100 : page * 4096 + 200] = bytes(100)
    path.write_bytes(damaged)
    again = Store.of(Database(url=f"sqlite+aiosqlite:///{path}"))
    try:
        assert await faults(again) != []
    finally:
        await again.close()
