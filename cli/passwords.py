"""Owns getting a password that is to be set: from a prompt, from stdin or made up, and never from the command line."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from cli.exitcodes import Failure
from medforged.contract.exitcodes import ExitCode

__all__ = ["password_options", "read_password"]

# 24 characters: enough that nobody guesses them, and few enough to be typed once.
_GENERATED_BYTES = 18

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def password_options(command: Decorated) -> Decorated:
    """The ways to give a password, passed as `from_stdin` and `generate`."""
    command = click.option("--generate", is_flag=True, help="Make up a password and show it once, on stdout.")(command)
    return click.option("--password-stdin", "from_stdin", is_flag=True, help="Read it from the first line of stdin.")(
        command
    )


def read_password(*, from_stdin: bool, generate: bool) -> str:
    """The password. Raises click's usage error where there is no way to it, and Failure for what is none."""
    if from_stdin and generate:
        raise click.UsageError("--password-stdin and --generate exclude each other")
    if generate:
        return secrets.token_urlsafe(_GENERATED_BYTES)
    if from_stdin:
        return _first_line()
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the password: give --password-stdin or --generate")
    asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return asked


def _first_line() -> str:
    try:
        line = sys.stdin.readline()
        line.encode()  # some locales let bytes that are no text through
    except UnicodeError as error:
        raise Failure("cannot read the password from stdin: it is not text in this locale", ExitCode.USAGE) from error
    password = line.removesuffix("\n").removesuffix("\r")
    if not password:
        raise Failure("cannot read the password from stdin: its first line is empty", ExitCode.USAGE)
    return password
