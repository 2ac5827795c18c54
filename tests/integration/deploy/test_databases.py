"""The copies of an upgrade: taken once, whole even beside a writer's log, and put back only where the schema changed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from facade.bootstrap import prepare
from facade.config import load_settings
from tests.integration.deploy.program import inside, program
from tests.integration.facade.program import Program

pytestmark = pytest.mark.integration


def write(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in statements:
            connection.execute(statement)


def rows(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM people ORDER BY name")]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "records.db"
    write(
        path,
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES ('0002')",
        "CREATE TABLE people (name TEXT)",
        "INSERT INTO people VALUES ('ada')",
    )
    return path


def test_what_a_release_has_migrated_is_put_back_and_its_own_is_kept_aside(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies" / "one"
    assert program("databases.py", "take", database, folder).returncode == 0
    write(database, "UPDATE alembic_version SET version_num = '0003'", "INSERT INTO people VALUES ('eve')")
    done = program("databases.py", "put-back", database, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(database) == ["ada"]
    assert rows(folder / "records.db.later") == ["ada", "eve"]
    assert database.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_database_whose_schema_is_the_same_keeps_what_people_did_meanwhile(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    program("databases.py", "take", database, folder)
    write(database, "INSERT INTO people VALUES ('bob')")
    assert program("databases.py", "put-back", database, folder).returncode == 0
    assert rows(database) == ["ada", "bob"]


def test_a_program_that_is_started_again_and_again_does_not_replace_the_copy(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    program("databases.py", "take", database, folder)
    write(database, "UPDATE alembic_version SET version_num = '0003'")
    assert program("databases.py", "take", database, folder).returncode == 0
    program("databases.py", "put-back", database, folder)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0002",)


def test_a_writer_that_was_killed_has_left_its_log_and_it_is_in_the_copy(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    with closing(sqlite3.connect(database)) as open_still:
        open_still.execute("INSERT INTO people VALUES ('carol')")
        open_still.commit()
        assert Path(f"{database}-wal").stat().st_size > 0
        assert program("databases.py", "take", database, folder).returncode == 0
    assert rows(folder / "records.db") == ["ada", "carol"]


def test_a_first_start_has_nothing_to_copy_and_nothing_is_put_back(tmp_path: Path) -> None:
    database, folder = tmp_path / "new.db", tmp_path / "copies"
    assert program("databases.py", "take", database, folder).returncode == 0
    assert not database.exists()
    write(database, "CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('0001')")
    assert program("databases.py", "put-back", database, folder).returncode == 0
    # It was not there before; what has been made is kept aside.
    assert not database.exists()
    assert (folder / "new.db.later").exists()


def test_a_copy_that_is_gone_or_damaged_replaces_nothing(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    program("databases.py", "take", database, folder)
    write(database, "UPDATE alembic_version SET version_num = '0003'", "INSERT INTO people VALUES ('eve')")
    (folder / "records.db").write_bytes(b"no database at all, for certain" * 200)
    assert program("databases.py", "put-back", database, folder).returncode == 1
    assert rows(database) == ["ada", "eve"]
    (folder / "records.db").unlink()
    done = program("databases.py", "put-back", database, folder)
    assert (done.returncode, "cannot copy the database" in done.stderr) == (1, True)
    assert rows(database) == ["ada", "eve"]


def test_nothing_of_the_later_releases_log_is_left_beside_the_copy(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    program("databases.py", "take", database, folder)
    # As a program that was killed leaves it: what it wrote last is in its log alone.
    writer = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(\"UPDATE alembic_version SET version_num = '9'\"); c.execute(\"INSERT INTO people VALUES ('eve')\"); c.commit(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", writer, database], check=False).returncode == 9
    assert Path(f"{database}-wal").stat().st_size > 0
    assert program("databases.py", "put-back", database, folder).returncode == 0
    assert not Path(f"{database}-wal").exists()
    assert rows(database) == ["ada"]
    assert rows(folder / "records.db.later") == ["ada", "eve"]


def test_a_damaged_database_stops_the_upgrade(database: Path, tmp_path: Path) -> None:
    database.write_bytes(b"no database at all, for certain" * 200)
    done = program("databases.py", "take", database, tmp_path / "copies")
    assert done.returncode == 1
    assert done.stderr.startswith("cannot go on: cannot copy the database")
    assert not (tmp_path / "copies" / "schema").exists()


def test_the_oldest_copies_make_room_and_nothing_else_does(database: Path, tmp_path: Path) -> None:
    copies = tmp_path / "upgrades"
    names = [f"2026010{day}T120000Z-before-1.0-abcdef12" for day in range(1, 8)]
    for name in (*names, "notes", "20260101"):
        (copies / name).mkdir(parents=True)
    # The host's clock has been set back: the copy that is being made is not the newest by its name.
    folder = copies / "20251231T120000Z-before-1.1-abcdef12"
    assert program("databases.py", "take", database, folder).returncode == 0
    assert {path.name for path in copies.iterdir()} == {folder.name, "notes", "20260101", *names[-4:]}
    assert program("databases.py", "take", database, copies / "20260201T000000Z-before-1.2-abcdef12").returncode == 0
    kept = {path.name for path in copies.iterdir() if "before" in path.name}
    assert kept == {"20260201T000000Z-before-1.2-abcdef12", *names[-4:]}


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize("there_already", [False, True])
def test_a_link_where_a_programs_copies_are_removes_nothing_of_roots(tmp_path: Path, there_already: bool) -> None:
    """The facade, taken over, leads the copies elsewhere; what it cannot remove itself, an upgrade does not for it."""
    setpriv = shutil.which("setpriv")
    assert setpriv, "setpriv (util-linux) is needed to become another user"
    # Finds its way into the checkout and the test's folder, whose modes are none of its business, and writes nowhere.
    nobody = (setpriv, "--reuid=65534", "--regid=65534", "--clear-groups")
    nobody += ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    name = "20260201T000000Z-before-1.1-abcdef12"
    theirs = {f"2026010{day}T120000Z-before-1.0-abcdef12" for day in range(1, 8)} | ({name} if there_already else set())
    roots, own = tmp_path / "roots", tmp_path / "own"
    for folder in (*(roots / each for each in theirs), own):
        folder.mkdir(parents=True)
    own.chmod(0o777)
    (own / "upgrades").symlink_to(roots)
    done = program("databases.py", "take", tmp_path / "none.db", own / "upgrades" / name, become=nobody)
    assert (done.returncode, "Permission denied" in done.stderr) == (1, True)
    assert {path.name for path in roots.iterdir()} == theirs
    # The control: root, led there, would have removed them.
    assert program("databases.py", "take", tmp_path / "none.db", own / "upgrades" / name).returncode == 0
    assert len(list(roots.iterdir())) == 5


@pytest.fixture
def facade(tmp_path: Path) -> Path:
    """The facade's program, as an installation has it: it knows its settings."""
    Program(tmp_path).write()
    config, path = tmp_path / "facade.toml", tmp_path / "medforge-facade"
    asyncio.run(prepare(load_settings(config, {})))
    main = "from facade.app import main; main()"
    path.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{main}' --config {config} \"$@\"\n")
    path.chmod(0o755)
    return path


def test_accounts_in_a_database_server_are_backed_up_once_and_can_be_restored(facade: Path, tmp_path: Path) -> None:
    folder = tmp_path / "upgrades" / "20260201T000000Z-before-1.0-abcdef12"
    done = program("databases.py", "back-up", facade, folder)
    assert (done.returncode, done.stderr) == (0, "")
    backup = folder / "accounts.backup"
    assert (backup.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    first = backup.read_bytes()
    # A program that is started again and again leaves the backup of before its first start.
    assert program("databases.py", "back-up", facade, folder).returncode == 0
    assert backup.read_bytes() == first
    told = subprocess.run([facade, "restore", backup, "--force"], check=True, capture_output=True, text=True).stdout
    assert told.startswith(f"{backup}: restored ")


def test_without_a_backup_the_upgrade_stops_and_says_why(facade: Path, tmp_path: Path) -> None:
    (tmp_path / "facade.db").write_bytes(b"no database at all, for certain" * 200)
    folder = tmp_path / "upgrades" / "20260201T000000Z-before-1.0-abcdef12"
    done = program("databases.py", "back-up", facade, folder)
    assert done.returncode == 1
    assert done.stderr.startswith("cannot go on: cannot back up the accounts: medforge-facade: ")
    assert not (folder / "accounts.backup").exists()


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("sqlite+aiosqlite:///{home}/facade.db", "databases.py take {home}/facade.db {folder}"),
        ("mysql+asyncmy://medforge-facade@/medforge", "databases.py back-up {before}/bin/medforge-facade {folder}"),
    ],
)
def test_systemd_is_told_to_copy_what_there_is(tmp_path: Path, url: str, wanted: str) -> None:
    """The drop-in of the facade's service has no `+`: it is run as the service, with its password and within its walls."""
    (tmp_path / "facade.db").touch()
    Program(tmp_path).write(database={"url": url.format(home=tmp_path)})
    done = inside(
        "import install, places; from pathlib import Path; from releases import Release\n"
        f"places.SETTINGS = places.FACADE_STATE = Path({str(tmp_path)!r}); install._DROP_INS = Path({str(tmp_path)!r})\n"
        "before = Release(Path('/releases/1.0-00000000')); copies = install._copies(before.name)\n"
        "install._copy_before_start(Release(Path('/releases/1.1-00000000')), copies, before)\n"
        "print(copies.facade_folder, before.home)"
    )
    assert done.returncode == 0, done.stderr
    folder, before = done.stdout.split()
    lines = (tmp_path / "medforge-facade.service.d" / "50-upgrade.conf").read_text().splitlines()
    start = next(line for line in lines if line.startswith("ExecStartPre="))
    assert start.startswith("ExecStartPre=/usr/bin/env ")
    assert start.endswith(wanted.format(home=tmp_path, folder=folder, before=before))


def test_wrong_use_is_told(tmp_path: Path) -> None:
    assert program("databases.py", "take", tmp_path).returncode == 2
