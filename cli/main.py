"""Owns the entry point of medforgectl: its global options, its commands, and what it ends with."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from cli.commands.completion import completion
from cli.commands.doctor import doctor
from cli.commands.gpus import gpus
from cli.commands.logs import logs
from cli.commands.orphans import cleanup
from cli.commands.reconcile import reconcile
from cli.commands.sessions import sessions
from cli.commands.status import status
from cli.commands.users import users
from cli.connection import Daemon
from cli.exitcodes import BROKEN_PIPE, INTERRUPTED, Failure
from medforged import __version__
from medforged.contract.exitcodes import ExitCode

__all__ = ["main", "medforgectl", "run"]

# What a write to stdout fails with when the disk or the quota behind it is full, or broken.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class _ReaderGone(Exception):
    """Whoever read stdout has closed it."""


class _Program(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would end the process itself, with a code that means a failure.
            raise _ReaderGone from error


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option(
    "--socket",
    type=click.Path(path_type=Path, readable=False),  # whether it can be opened is for the daemon's client to say
    envvar="MEDFORGE_SOCKET",
    show_envvar=True,
    # The default itself stays with the client, which is not loaded for --help; a test holds the two together.
    show_default="/run/medforge/medforged.sock",
    help="The daemon's socket.",
)
@click.option(
    "--operator-socket",
    type=click.Path(path_type=Path, readable=False),
    envvar="MEDFORGE_OPERATOR_SOCKET",
    show_envvar=True,
    show_default="operators.sock beside the daemon's socket",
    help="The facade's operator socket, for users.",
)
@click.pass_context
def medforgectl(context: click.Context, /, **sockets: Path | None) -> None:
    """Operate MedForge on this host: the daemon, and the facade's accounts.

    Run it as root or as a member of the group medforge. Results go to stdout, everything else to stderr; what a
    command ends with is told in docs/reference/exit-codes.md.

    \b
    Examples:
      medforgectl status
      medforgectl gpus
      medforgectl sessions ls --all -o json
      medforgectl sessions stop abcd2345
      medforgectl reconcile
      medforgectl users ls
    """
    context.obj = Daemon(sockets["socket"])


for command in (status, doctor, gpus, sessions, logs, reconcile, cleanup, users, completion):
    medforgectl.add_command(command)


def main() -> NoReturn:
    """Run medforgectl with the arguments of the process, and end the process."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its escape, never a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = run()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # what could not be written, `run` has told or has no reader any more
            stream.flush()
    # Nothing is left to be done, and to take apart all that was loaded takes a fifth of the time of most commands.
    os._exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run medforgectl and return its exit code; every way to end is here."""
    try:
        result = medforgectl.main(arguments, prog_name="medforgectl", standalone_mode=False)
        sys.stdout.flush()
    except Failure as error:
        click.echo(f"medforgectl: {error.message}", err=True)
        return error.code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (_ReaderGone, BrokenPipeError):
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the edge of the program: what nobody foresaw has an exit code of its own
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            click.echo(f"medforgectl: cannot write the output: {error.strerror}", err=True)
            return ExitCode.FAILED
        traceback.print_exc()
        return ExitCode.INTERNAL
    # click returns the code that a command gave to `Context.exit`, or else what the command returned: nothing.
    return result if isinstance(result, int) else ExitCode.OK
