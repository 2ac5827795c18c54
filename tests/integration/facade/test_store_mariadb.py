"""What is particular to a database on a server: how it is refused, lost and found, and migrations that break off."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DataError

from facade.config import Database, Settings
from facade.startup import StartupFailed
from facade.store.engine import Store
from facade.store.failures import DatabaseUnavailable
from facade.store.tables import metadata
from facade.store.users import User, Users
from medforged.contract.exitcodes import ExitCode
from tests.integration.facade.conftest import PASSWORD, Api, eventually
from tests.integration.facade.mariadb import Server

pytestmark = pytest.mark.integration
DATABASE = "mariadb"
SECRET = "geheim-ö€"
CHANGE = re.compile(r"\s*(CREATE|ALTER|DROP|INSERT|UPDATE|DELETE)\b")


@pytest.fixture
async def database(request: pytest.FixtureRequest, new_database: Callable[[str], Awaitable[str]]) -> str:
    """One of its own for every test, without tables."""
    return await new_database(request.param)


@pytest.fixture
def name(database: str) -> str:
    return database.partition("?")[0].rpartition("/")[2]


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Store]]:
    made: list[Store] = []

    def make(url: str, **options: Any) -> Store:
        made.append(Store.of(Database(url=url, **options)))
        return made[-1]

    yield make
    for store in made:
        await store.close()


@pytest.fixture
async def account(mariadb: Server, database: str, name: str) -> AsyncIterator[str]:
    """A user of the server who has a password and may use one database."""
    user = f"user_{name}"
    await mariadb.execute(f"CREATE USER {user}@'%' IDENTIFIED BY '{SECRET}'", f"GRANT ALL ON {name}.* TO {user}@'%'")
    yield user
    await mariadb.execute(f"DROP USER {user}@'%'")


async def refused(store: Store) -> StartupFailed:
    with pytest.raises(StartupFailed) as caught:
        await store.open()
    assert SECRET not in str(caught.value)
    assert str(caught.value).count("\n") == 0
    return caught.value


async def test_every_table_keeps_text_as_it_is(opened: Callable[..., Store], database: str) -> None:
    """The database itself is made with another character set."""
    store = opened(database)
    await store.open()
    async with store.reading() as connection:
        found = await connection.execute(
            text("SELECT engine, table_collation FROM information_schema.tables WHERE table_schema = DATABASE()")
        )
        assert set(found.all()) == {("InnoDB", "utf8mb4_nopad_bin")}


async def test_settings_of_every_connection(opened: Callable[..., Store], database: str) -> None:
    store = opened(database)
    await store.open()
    wanted = "SELECT @@tx_isolation, @@time_zone, @@innodb_lock_wait_timeout, @@foreign_key_checks, @@autocommit"
    async with store.reading() as one, store.reading() as two:
        for connection in (one, two):
            found = (await connection.execute(text(wanted))).one()
            assert tuple(found) == ("REPEATABLE-READ", "+00:00", 5, 1, 0)


async def test_what_does_not_fit_is_refused(opened: Callable[..., Store], database: str) -> None:
    """Other settings of the server would cut it off."""
    store = opened(database)
    await store.open()
    with pytest.raises(DataError, match="Data too long"):
        await Users(store).add(User(uuid4(), "x" * 255, "hash", False, 1, datetime.now(UTC)))


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A certificate of its own authority for 127.0.0.1, and another's."""
    for name in ("server", "other"):
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={name}",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-keyout",
                tmp_path / f"{name}.key",
                "-out",
                tmp_path / f"{name}.pem",
            ],
            check=True,
            capture_output=True,
        )
    return tmp_path


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_encryption(
    opened: Callable[..., Store],
    mariadb: Server,
    account: str,
    name: str,
    certificates: Path,
    restarted: Callable[..., None],
) -> None:
    """The server has to show a certificate for its name, of the authority that the URL names."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pair = [mariadb.keep(certificates / f"server.{kind}") for kind in ("pem", "key")]
    restarted("--bind-address=127.0.0.1", f"--port={port}", f"--ssl-cert={pair[0]}", f"--ssl-key={pair[1]}")
    place = f"mysql+asyncmy://{account}:{SECRET}@127.0.0.1:{port}/{name}"
    store = opened(f"{place}?ssl_ca={certificates / 'server.pem'}")
    await store.open()
    async with store.reading() as connection:
        cipher = (await connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))).one()
    assert cipher[1].startswith("TLS_")
    other_authority = await refused(opened(f"{place}?ssl_ca={certificates / 'other.pem'}"))
    assert "certificate verify failed" in str(other_authority)
    other_name = await refused(
        opened(f"{place}?ssl_ca={certificates / 'server.pem'}".replace("127.0.0.1", "localhost"))
    )
    assert "certificate verify failed" in str(other_name)
    with pytest.raises(StartupFailed, match="its certificates cannot be read"):
        opened(f"{place}?ssl_ca={certificates / 'none.pem'}")


async def test_a_password_is_enough(
    opened: Callable[..., Store], mariadb: Server, account: str, name: str, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    await opened(mariadb.url(name, account), password_file=str(secret)).open()


async def test_a_wrong_password(opened: Callable[..., Store], mariadb: Server, account: str, name: str) -> None:
    error = await refused(opened(mariadb.url(name, account, "wrong-password")))
    assert error.exit_code is ExitCode.NO_PERMISSION
    assert f"access is denied to {account}; correct the user" in str(error)
    assert "wrong-password" not in str(error)


async def test_no_such_database(opened: Callable[..., Store], mariadb: Server) -> None:
    error = await refused(opened(mariadb.url("nowhere")))
    assert error.exit_code is ExitCode.CONFIG
    assert "the server has no such database; CREATE DATABASE `nowhere` there" in str(error)


@pytest.mark.usefixtures("account")
async def test_a_user_without_rights(opened: Callable[..., Store], mariadb: Server, account: str, name: str) -> None:
    await mariadb.execute(f"REVOKE ALL ON {name}.* FROM {account}@'%'", f"GRANT SELECT ON {name}.* TO {account}@'%'")
    secret = mariadb.url(name, account, SECRET)
    error = await refused(opened(secret))
    assert error.exit_code is ExitCode.NO_PERMISSION
    assert f"{account} may not do this there" in str(error)
    assert f"GRANT ALL PRIVILEGES ON `{name}`.*" in str(error)


@pytest.mark.parametrize("where", ["@127.0.0.1:1/", "@no.such.host.invalid/", "@/?unix_socket=/nowhere.sock"])
async def test_no_server(opened: Callable[..., Store], where: str) -> None:
    place, _, query = where.partition("?")
    error = await refused(opened(f"mysql+asyncmy://user:{SECRET}{place}facade?{query}"))
    assert error.exit_code is ExitCode.UNAVAILABLE
    assert "the server does not answer" in str(error)


@pytest.fixture
def restarted(mariadb: Server) -> Iterator[Callable[..., None]]:
    """Starts the server again with other options; as it was afterwards."""

    def restart(*options: str) -> None:
        mariadb.stop()
        mariadb.start(options)

    yield restart
    mariadb.stop()
    mariadb.start()


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("10.5.99-MariaDB", "the server is MariaDB 10.5.99; use 10.6 or newer"),
        ("8.0.36", "the server is not MariaDB"),
    ],
)
async def test_a_server_of_another_kind(
    opened: Callable[..., Store], database: str, restarted: Callable[..., None], version: str, told: str
) -> None:
    restarted("--skip-networking", f"--version={version}")
    error = await refused(opened(database))
    assert error.exit_code is ExitCode.CONFIG
    assert told in str(error)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "ALTER TABLE users MODIFY email VARCHAR(254) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL",
            "users.email has the collation utf8mb4_general_ci",
        ),
        ("ALTER TABLE login_revisions ENGINE=Aria", "login_revisions has the engine Aria"),
    ],
)
async def test_tables_that_somebody_has_changed(
    opened: Callable[..., Store], mariadb: Server, database: str, name: str, change: str, told: str
) -> None:
    await opened(database).open()
    await mariadb.execute("SET foreign_key_checks = 0", change, database=name)
    error = await refused(opened(database))
    assert error.exit_code is ExitCode.CONFIG
    assert told in str(error)


async def test_somebody_elses_table_is_in_the_way(
    opened: Callable[..., Store], mariadb: Server, database: str, name: str
) -> None:
    """It is not taken for ours, however often the facade starts, and when it has gone the migration goes on."""
    await mariadb.execute("CREATE TABLE logins (x INT)", database=name)
    for _ in range(2):
        assert "Table 'logins' already exists" in str(await refused(opened(database)))
    await mariadb.execute("DROP TABLE logins", database=name)
    store = opened(database)
    await store.open()
    await whole(store)


class Crash(BaseException):
    """What a process meets whose power is cut."""


@contextlib.contextmanager
def crash(moment: str, number: int) -> Iterator[None]:
    """The process dies right before or right after the so-and-so-many-th change of a migration, and can tell nobody."""
    left = number

    def die(_: object, __: object, statement: str, *___: object) -> None:
        nonlocal left
        if CHANGE.match(statement) and "migration_progress" not in statement:
            left -= 1
            if left == 0:
                raise Crash

    event.listen(Engine, f"{moment}_cursor_execute", die)
    try:
        yield
    finally:
        event.remove(Engine, f"{moment}_cursor_execute", die)


async def test_a_migration_goes_on_where_it_was_broken_off(opened: Callable[..., Store], database: str) -> None:
    """Each process that goes on with it comes one statement further, or two, before it dies as well."""
    deaths = 0
    for moment, number in itertools.cycle((("before", 1), ("after", 1), ("after", 2))):
        assert deaths < 100
        store = opened(database)
        try:
            with crash(moment, number):
                await store.open()
        except Crash:
            deaths += 1
        else:
            break
        await store.close()
    assert deaths >= 2 * 5
    await opened(database).open()
    await whole(store)


async def whole(store: Store) -> None:
    def difference(connection: Connection) -> tuple[Any, bool]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, metadata), inspect(connection).has_table("migration_progress")

    async with store.reading() as connection:
        assert await connection.run_sync(difference) == ([], False)
        assert (await connection.execute(text("SELECT id, revision FROM login_revisions"))).all() == [(1, 0)]


async def test_one_process_at_a_time_changes_the_schema(
    opened: Callable[..., Store], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facade.store.mariadb._SCHEMA_LOCK_SECONDS", 0)
    first, second = opened(database), opened(database)
    async with first.backend.migrating(first._engine):
        error = await refused(second)
    assert error.exit_code is ExitCode.TEMPORARY
    assert "another process has been changing its schema" in str(error)
    await second.open()


async def test_a_writer_that_waits_too_long(opened: Callable[..., Store], database: str) -> None:
    first, second = opened(database), opened(database, connections=1)
    await first.open()
    async with second.reading() as connection:
        await connection.execute(text("SET SESSION innodb_lock_wait_timeout = 0"))
    async with first.writing():
        with pytest.raises(DatabaseUnavailable, match="Lock wait timeout exceeded"):
            async with second.writing():
                pass
    async with second.writing():
        pass


async def test_connections_that_the_server_has_ended_are_not_noticed(
    opened: Callable[..., Store], mariadb: Server, database: str, name: str
) -> None:
    store = opened(database)
    await store.open()
    for _ in range(3):
        async with store.reading() as one, store.reading() as two:
            ids = [(await each.execute(text("SELECT connection_id()"))).scalar_one() for each in (one, two)]
        await mariadb.execute(*(f"KILL CONNECTION {number}" for number in ids), database=name)


async def test_a_connection_that_is_ended_in_use(
    opened: Callable[..., Store], mariadb: Server, database: str, name: str
) -> None:
    store = opened(database)
    await store.open()

    async def lose() -> None:
        async with store.writing() as connection:
            number = (await connection.execute(text("SELECT connection_id()"))).scalar_one()
            await mariadb.execute(f"KILL CONNECTION {number}", database=name)
            await connection.execute(text("UPDATE login_revisions SET revision = 9"))

    with pytest.raises(DatabaseUnavailable):
        await lose()
    async with store.reading() as connection:
        assert (await connection.execute(text("SELECT revision FROM login_revisions"))).scalar_one() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_that_goes_and_comes_back(
    settings: Settings, api: Api, mariadb: Server, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    # As servers are, and the test run's is not: what is committed outlives it.
    await mariadb.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    person = await api.person()
    mariadb.stop(number)
    try:
        for path in ("login", "signup"):
            body = {"email": person.email, "password": PASSWORD}
            answer = await api.post(f"/api/v1/auth/{path}", json=body)
            assert (answer.status, answer.json["code"]) == (503, "503")
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json["detail"] == "The facade's database does not answer."
        assert (await api.get("/api/v1/me", token=person.token)).status in (200, 503)
        while (health := await api.get("/healthz")).status != 503:
            pass
        assert [part["part"] for part in health.data["failing"]] == ["database"]
    finally:
        mariadb.start()
    while (await api.get("/healthz")).status != 200:
        pass
    answer = await api.post("/api/v1/auth/login", json={"email": person.email, "password": PASSWORD})
    assert answer.status == 200
    assert (await api.get("/api/v1/me", token=person.token)).status == 200
    await eventually(lambda: api.facade.registry.live)
    assert "Traceback" not in capfd.readouterr().err
