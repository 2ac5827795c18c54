"""Owns `database.url`: which databases it may name, and where the password comes from. Nothing here is ever shown."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from facade.config import Database
from facade.startup import StartupFailed
from medforged.contract.exitcodes import ExitCode

__all__ = ["MARIADB", "SQLITE", "address", "password"]

SQLITE = "sqlite+aiosqlite"
MARIADB = "mysql+asyncmy"
CHARSET = "utf8mb4"
_OPTIONS = frozenset({"unix_socket", "charset", "ssl_ca", "ssl_cert", "ssl_key"})
_MAX_PASSWORD_BYTES = 4096


def address(text: str) -> URL:
    """The URL, checked without connecting. Raises StartupFailed, whose message repeats nothing of it."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise _refused(
            "it is not a URL",
            "write mysql+asyncmy://USER@HOST/DATABASE and put the password into database.password_file",
        ) from None
    if url.drivername == SQLITE:
        if not url.database or url.database == ":memory:" or url.query:
            raise _refused("it names no file", "write sqlite+aiosqlite:////PATH, without options")
        return url
    if url.drivername != MARIADB:
        raise _refused(
            f"{url.drivername} is not supported", f"write {SQLITE}:////PATH or {MARIADB}://USER@HOST/DATABASE"
        )
    if not url.database or not url.username:
        raise _refused("it lacks the user or the database", f"write {MARIADB}://USER@HOST/DATABASE")
    if unknown := sorted(url.query.keys() - _OPTIONS):
        raise _refused(f"the option {unknown[0]} is not supported", f"the options are {', '.join(sorted(_OPTIONS))}")
    if url.query.get("charset", CHARSET) != CHARSET:
        raise _refused("its charset cannot keep every name", f"leave the option charset out; it is always {CHARSET}")
    if not url.host and "unix_socket" not in url.query:
        raise _refused("it lacks the host", "write a host, or the option unix_socket")
    return url


def password(settings: Database, url: URL, environ: Mapping[str, str]) -> str | None:
    """What the server is told: from `database.password_file`, else from the URL. Raises StartupFailed."""
    if not settings.password_file:
        return url.password if url.password is None else str(url.password)
    if url.password is not None:
        raise StartupFailed(
            "cannot use database.password_file: database.url has a password too; take it out there", ExitCode.CONFIG
        )
    path = Path(settings.password_file)
    if not path.is_absolute():
        # systemd.exec(5): LoadCredential=NAME:… puts a file of that name there, for the service alone.
        path = Path(environ.get("CREDENTIALS_DIRECTORY", "/run/credentials/medforge-facade.service")) / path
    try:
        if stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO:
            raise StartupFailed(
                f"cannot use database.password_file: everybody may read {path}; chmod o= it", ExitCode.CONFIG
            )
        with path.open(encoding="utf-8") as file:
            found = file.read(_MAX_PASSWORD_BYTES + 1).removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StartupFailed(
            f"cannot read database.password_file {path}: {reason}; correct the path, or pass the file with "
            "LoadCredential= and name it without a folder",
            ExitCode.CONFIG,
        ) from None
    if not found or len(found) > _MAX_PASSWORD_BYTES or "\n" in found:
        raise StartupFailed(
            f"cannot use database.password_file {path}: it has to hold one line, the password", ExitCode.CONFIG
        )
    return found


def _refused(reason: str, remedy: str) -> StartupFailed:
    return StartupFailed(f"cannot use database.url: {reason}; {remedy}", ExitCode.CONFIG)
