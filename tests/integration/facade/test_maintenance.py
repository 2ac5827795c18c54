"""`medforge-facade backup`, `verify` and `restore`: what they say, what they end with, and being killed in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine

from facade.config import Database
from facade.store.archive import FORMAT, VERSION, Header
from facade.store.archive_writer import ArchiveWriter
from facade.store.engine import Store
from facade.store.integrity import faults
from facade.store.migrate import head
from facade.store.tables import metadata, users
from facade.store.users import User, Users
from medforged.contract.exitcodes import ExitCode
from tests.integration.cli.warm import Warm
from tests.integration.facade.mariadb import Server
from tests.integration.facade.program import Program

pytestmark = pytest.mark.integration

# More than the databases keep in memory before they begin to write.
MANY = 30_000
KILLED_AT = 8_000


@pytest.fixture
async def database(request: pytest.FixtureRequest, new_database: Callable[[str], Awaitable[str]]) -> str:
    """One of its own for every test, without tables."""
    return await new_database(request.param)


class Commands(Program):
    """Runs the commands beside serving."""

    def __init__(self, directory: Path, warm: Warm) -> None:
        super().__init__(directory)
        self._warm = warm

    def command(self, *arguments: str) -> tuple[int, str]:
        """Exit code and everything that was said."""
        done = self._warm.run(["--config", str(self.config), *arguments], os.environ)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    loaded = ("aiosqlite", "asyncmy", "sqlalchemy.dialects.mysql.asyncmy", "sqlalchemy.dialects.sqlite.aiosqlite")
    with Warm([sys.executable, "-W", "error"], os.environ, "facade.app:main", loaded) as made:
        yield made


@pytest.fixture
def program(tmp_path: Path, database: str, warm: Warm) -> Iterator[Commands]:
    made = Commands(tmp_path, warm)
    made.write(database={"url": database})
    yield made
    made.close()


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    made = Store.of(Database(url=database))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "of today.backup"


async def add(store: Store, email: str) -> None:
    await Users(store).add(User(uuid4(), email, "hash", False, 1, datetime.now(UTC)))


async def emails(store: Store) -> list[str]:
    async with store.reading() as connection:
        return list((await connection.execute(select(users.c.email).order_by(users.c.email))).scalars())


async def test_from_a_backup_to_a_restore(program: Commands, store: Store, file: Path) -> None:
    await add(store, "a@example.org")
    code, told = program.command("backup", str(file))
    assert (code, "1 users" in told) == (0, True), told
    assert stat.S_IMODE(file.stat().st_mode) == 0o600  # noqa: ASYNC240  # nothing else is on the loop

    code, told = program.command("verify", str(file))
    assert code == 0
    assert told.startswith(f"{file}: whole, of 20")
    assert f"schema {head()}, " in told

    code, told = program.command("backup", str(file))
    assert (code, told) == (1, f"medforge-facade: cannot write {file}: it exists; name another file or remove it\n")

    await add(store, "b@example.org")
    code, told = program.command("restore", str(file))
    assert (code, told) == (
        1,
        (
            f"medforge-facade: cannot use {file}: the database has rows in users already; "
            "nothing was changed, --force replaces everything\n"
        ),
    )
    code, told = program.command("restore", "--force", str(file))
    assert (code, told.startswith(f"{file}: restored ")) == (0, True), told
    assert await emails(store) == ["a@example.org"]

    assert program.command("verify") == (0, f"{store.told}: sound\n")


async def test_a_database_that_is_not_sound(program: Commands, store: Store) -> None:
    async with store.writing() as connection:
        await connection.execute(text("DELETE FROM login_revisions"))
    code, told = program.command("verify")
    assert code == ExitCode.FAILED
    assert told == (
        f"{store.told}: login_revisions has 0 rows instead of one\n"
        f"medforge-facade: the database {store.told} is not sound; restore a backup\n"
    )


async def test_a_backup_needs_a_database_of_this_release(program: Commands, store: Store, file: Path) -> None:
    async with store.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    code, told = program.command("backup", str(file))
    assert code == ExitCode.CONFIG
    assert f"its schema has revision 0001 and this release's is {head()}; start the facade" in told
    assert not file.exists()  # noqa: ASYNC240  # nothing else is on the loop


@pytest.fixture
def alone(tmp_path: Path, warm: Warm) -> Iterator[Commands]:
    """With a database that is not there yet."""
    made = Commands(tmp_path, warm)
    made.write()
    yield made
    made.close()


def test_a_database_that_is_not_there(alone: Commands, file: Path) -> None:
    for arguments in (("backup", str(file)), ("verify",)):
        code, told = alone.command(*arguments)
        assert code == ExitCode.NOT_FOUND
        assert "there is no such file" in told
    assert not file.exists()


def test_files_that_are_no_backup(alone: Commands, file: Path) -> None:
    code, told = alone.command("verify", str(file))
    assert (code, f"cannot use {file}: there is no such file" in told) == (ExitCode.NOT_FOUND, True)
    file.write_text("something else\n")
    for command in ("verify", "restore"):
        code, told = alone.command(command, str(file))
        assert (code, f"cannot use {file}: it is not a backup" in told) == (ExitCode.FAILED, True)
        assert told.count("\n") == 1


def test_a_backup_of_a_later_release(alone: Commands, file: Path) -> None:
    write(file, 1, schema="9999")
    code, told = alone.command("restore", str(file))
    assert code == ExitCode.CONFIG
    assert "only a later release knows revision 9999 of its schema; nothing was changed, install that release" in told


def test_a_place_that_cannot_be_written(alone: Commands, tmp_path: Path) -> None:
    write(tmp_path / "some", 1)
    assert alone.command("restore", str(tmp_path / "some"))[0] == 0
    code, told = alone.command("backup", str(tmp_path / "none" / "file"))
    assert (code, "No such file or directory; nothing was kept" in told) == (ExitCode.FAILED, True)


def test_help_needs_no_configuration(alone: Commands) -> None:
    alone.config.unlink()
    code, told = alone.command("restore", "--help")
    assert (code, "all of it or" in told) == (0, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused as root")
def test_root_is_refused(alone: Commands, tmp_path: Path, file: Path) -> None:
    """A database that root makes is one that the facade cannot open."""
    alone.write(process={"allow_privileged": False})
    write(file, 1)
    code, told = alone.command("restore", str(file))
    assert (code, "cannot start as root" in told) == (ExitCode.NO_PERMISSION, True)
    assert not (tmp_path / "facade.db").exists()


def write(file: Path, people: int, schema: str = "") -> None:
    """A backup with so many people in it and nothing else."""
    tables = [str(table.name) for table in metadata.sorted_tables]
    header = Header(
        format=FORMAT,
        version=VERSION,
        schema=schema or head(),
        created_at="2026-01-01T00:00:00+00:00",
        release="0",
        tables=tables,
    )
    values = {"password_hash": "x" * 97, "max_concurrent_sessions": 1, "created_at": "2026-01-01 00:00:00.000000"}
    with ArchiveWriter(file, header) as writer:
        for table in metadata.sorted_tables:
            columns = [str(column.name) for column in table.columns]
            content = writer.start(str(table.name), columns)
            if table is users:
                for number in range(people):
                    person = {**values, "id": f"{number:032x}", "email": f"{number}@example.org"}
                    writer.row(content, [person.get(name, 0) for name in columns])
            writer.end(content)
        writer.finish()


@contextlib.asynccontextmanager
async def watched(database: str, request: pytest.FixtureRequest) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """How many rows somebody else's transaction has given to the database so far, about."""
    if database.startswith("sqlite"):
        log = Path(f"{database.removeprefix('sqlite+aiosqlite:///')}-wal")

        async def pages() -> int:
            # A row of a user is a fifth of a kilobyte, its keys included, and the last ones are still in memory.
            return log.stat().st_size // 200 if log.exists() else 0  # noqa: ASYNC240  # nothing else is on the loop

        yield pages
        return
    server: Server = request.getfixturevalue("mariadb")
    administrator = create_async_engine(server.url("information_schema"))

    async def rows() -> int:
        # InnoDB renews what this table shows only when nobody has read it for 0.1 s.
        await asyncio.sleep(0.11)
        async with administrator.connect() as connection:
            found = await connection.scalar(text("SELECT MAX(trx_rows_modified) FROM information_schema.innodb_trx"))
        return int(found or 0)

    yield rows
    await administrator.dispose()


async def test_a_restore_that_is_killed_leaves_what_was_there(
    request: pytest.FixtureRequest, program: Commands, store: Store, database: str, file: Path
) -> None:
    write(file, MANY)
    killed = False
    while not killed:
        await add(store, f"{uuid4()}@before.example.org")
        before = await emails(store)
        async with watched(database, request) as rows:
            start = await rows() if database.startswith("sqlite") else 0
            restoring = program.start("--config", str(program.config), "restore", "--force", str(file))
            while restoring.poll() is None and await rows() - start < KILLED_AT:
                pass
        restoring.send_signal(signal.SIGKILL)
        told, _ = restoring.communicate(timeout=30)
        # On a busy machine it may have ended before it was seen in the middle.
        assert restoring.returncode in (0, -signal.SIGKILL), told
        killed = restoring.returncode != 0
    assert await emails(store) == before
    assert await faults(store) == []
    await add(store, "after@example.org")
    assert "after@example.org" in await emails(store)
