"""`database.url` and the password: what is taken, and that nothing of it is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from facade.config import Database, load_settings
from facade.startup import StartupFailed
from facade.store.engine import Store
from facade.store.urls import address, password
from medforged.contract.exitcodes import ExitCode

pytestmark = pytest.mark.unit

SECRET = "geheim"
MARIADB = "mysql+asyncmy://medforge@db.example.org/facade"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite+aiosqlite:////var/lib/medforge-facade/facade.db",
        MARIADB,
        "mysql+asyncmy://medforge@db.example.org:3307/facade?charset=utf8mb4",
        "mysql+asyncmy://medforge@/facade?unix_socket=/run/mysqld/mysqld.sock",
        "mysql+asyncmy://medforge@db.example.org/facade?ssl_ca=/etc/medforge/ca.pem",
    ],
)
def test_taken(text: str) -> None:
    assert address(text).database


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mysql+asyncmy://u:geheim@h:geheim/d", "it is not a URL"),
        ("sqlite+aiosqlite:///:memory:", "it names no file"),
        ("sqlite+aiosqlite:////a.db?mode=ro", "it names no file"),
        ("mysql+pymysql://u:geheim@h/d", "mysql+pymysql is not supported"),
        ("mysql+asyncmy://u:geheim@h", "it lacks the user or the database"),
        ("mysql+asyncmy://h/d", "it lacks the user or the database"),
        ("mysql+asyncmy://u:geheim@/d", "it lacks the host"),
        ("mysql+asyncmy://u:geheim@h/d?charset=latin1", "its charset cannot keep every name"),
        ("mysql+asyncmy://u:geheim@h/d?charset=utf8", "its charset cannot keep every name"),
        ("mysql+asyncmy://u:geheim@h/d?local_infile=1", "the option local_infile is not supported"),
        ("mysql+asyncmy://u:geheim@h/d?read_default_file=/etc/my.cnf", "the option read_default_file"),
    ],
)
def test_refused(text: str, told: str) -> None:
    with pytest.raises(StartupFailed) as caught:
        address(text)
    assert caught.value.exit_code is ExitCode.CONFIG
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)


def secret_in(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("text", ["ge heim", "ge heim\n", "ge heim\r\n"])
def test_a_password_from_a_file(tmp_path: Path, text: str) -> None:
    settings = Database(url=MARIADB, password_file=secret_in(tmp_path / "secret", text, 0o640))
    assert password(settings, address(settings.url), {}) == "ge heim"


def test_a_password_from_systemd(tmp_path: Path) -> None:
    secret_in(tmp_path / "database", SECRET)
    settings = Database(url=MARIADB, password_file="database")
    assert password(settings, address(settings.url), {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == SECRET
    with pytest.raises(StartupFailed, match="LoadCredential="):
        password(settings, address(settings.url), {"CREDENTIALS_DIRECTORY": str(tmp_path / "other")})


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("geheim", 0o604, "everybody may read"),
        ("", 0o600, "it has to hold one line"),
        ("geheim\ngeheim\n", 0o600, "it has to hold one line"),
        ("geheim" * 1000, 0o600, "it has to hold one line"),
        ("g\udce9heim", 0o600, "it is not UTF-8 text"),
    ],
)
def test_an_unusable_password_file(tmp_path: Path, text: str, mode: int, told: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(text.encode(errors="surrogateescape"))
    path.chmod(mode)
    settings = Database(url=MARIADB, password_file=str(path))
    with pytest.raises(StartupFailed) as caught:
        password(settings, address(settings.url), {})
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)


def test_two_passwords(tmp_path: Path) -> None:
    settings = Database(url="mysql+asyncmy://u:geheim@h/d", password_file=secret_in(tmp_path / "secret", "another"))
    with pytest.raises(StartupFailed, match=r"database\.url has a password too"):
        password(settings, address(settings.url), {})


def test_nothing_shows_the_password() -> None:
    settings = load_settings(None, {"MEDFORGE_FACADE_DATABASE__URL": "mysql+asyncmy://u:geheim@h/d"})
    store = Store.of(settings.database)
    for shown in (repr(settings), str(settings), store.told, repr(store._engine), str(store._engine.url)):
        assert SECRET not in shown
    assert store.told == "d of u at h:3306"
