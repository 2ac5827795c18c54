"""Owns the commands of `medforge-facade` beside serving: a backup, what is in one, putting it back, and a check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from facade.config import Settings
from facade.startup import StartupFailed
from facade.store.archive import Damaged, TableContent
from facade.store.archive_reader import ArchiveReader
from facade.store.backup import back_up
from facade.store.engine import Store
from facade.store.failures import DatabaseUnavailable
from facade.store.integrity import faults
from facade.store.migrate import SchemaTooNew
from facade.store.restore import NotEmpty, restore
from medforged.contract.exitcodes import ExitCode

__all__ = ["COMMANDS"]

T = TypeVar("T")
_FILE = click.Path(path_type=Path, dir_okay=False)
Load = Callable[[], Settings]


@click.command("backup")
@click.argument("file", type=_FILE)
@click.pass_obj
def _backup(load: Load, file: Path) -> None:
    """Write accounts, logins and API tokens to FILE, while the facade runs.

    The file can be put into a database of the other kind. Password hashes are in it: only its owner can read it.
    """
    if file.exists():
        raise StartupFailed(f"cannot write {file}: it exists; name another file or remove it", ExitCode.FAILED)

    async def make(store: Store) -> list[TableContent]:
        await store.find()
        return await back_up(store, file)

    try:
        contents = _with_store(load(), make)
    except OSError as error:
        raise StartupFailed(f"cannot write {file}: {error.strerror}; nothing was kept", ExitCode.FAILED) from error
    except Damaged as error:
        raise StartupFailed(
            f"cannot write {file}: the disk does not give back what was written ({error}); nothing was kept",
            ExitCode.FAILED,
        ) from error
    click.echo(f"{file}: {_counts(contents)}")


@click.command("verify")
@click.argument("file", type=_FILE, required=False)
@click.pass_obj
def _verify(load: Load, file: Path | None) -> None:
    """See whether the backup FILE is whole; without FILE, whether the database is sound."""
    if file is not None:
        with _Reading(file), ArchiveReader.open(file) as archive:
            contents = archive.verify()
            header = archive.header
        click.echo(f"{file}: whole, of {header.created_at}, schema {header.schema}, {_counts(contents)}")
        return

    async def look(store: Store) -> list[str]:
        await store.find()
        return await faults(store)

    settings = load()
    found = _with_store(settings, look)
    told = Store.of(settings.database).told
    if found:
        for fault in found:
            click.echo(f"{told}: {fault}")
        raise StartupFailed(f"the database {told} is not sound; restore a backup", ExitCode.FAILED)
    click.echo(f"{told}: sound")


@click.command("restore")
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Replace what the database holds.")
@click.pass_obj
def _restore(load: Load, file: Path, *, force: bool) -> None:
    """Put the backup FILE into the database, all of it or nothing.

    Facades that run go on with what has been restored; while it is written, changes of accounts are answered with 503.
    """

    async def put(store: Store) -> list[TableContent]:
        return await restore(store, file, force=force)

    with _Reading(file):
        contents = _with_store(load(), put)
    click.echo(f"{file}: restored {_counts(contents)}")


COMMANDS: Sequence[click.Command] = (_backup, _verify, _restore)


class _Reading:
    """Errors of reading a backup, as sentences."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        match error:
            case FileNotFoundError():
                raise self._refused("there is no such file; name a backup", ExitCode.NOT_FOUND) from error
            case OSError():
                raise self._refused(f"{error.strerror}; nothing was changed", ExitCode.FAILED) from error
            case Damaged():
                raise self._refused(f"{error}; nothing was changed, use another backup", ExitCode.FAILED) from error
            case SchemaTooNew():
                raise self._refused(f"{error}; nothing was changed, install that release", ExitCode.CONFIG) from error
            case NotEmpty():
                told = f"the database has rows in {error} already; nothing was changed, --force replaces everything"
                raise self._refused(told, ExitCode.FAILED) from error

    def _refused(self, told: str, code: ExitCode) -> StartupFailed:
        return StartupFailed(f"cannot use {self._file}: {told}", code)


def _with_store(settings: Settings, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        store = Store.of(settings.database, patient=True)
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except DatabaseUnavailable as error:
        raise StartupFailed(f"{error}; nothing was changed, try again", ExitCode.UNAVAILABLE) from error


def _counts(contents: Sequence[TableContent]) -> str:
    return ", ".join(f"{content.rows} {content.table}" for content in contents)
