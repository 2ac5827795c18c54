"""Owns the one door through which the daemon starts programs: argument lists, a timeout, a fixed environment."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CommandFailed", "CommandResult", "run"]

# Programs are looked up here and nowhere else, and speak untranslated English.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "LANG": "C"}
_MAX_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a program that ended with 0 wrote."""

    stdout: str
    stderr: str


class CommandFailed(Exception):
    """A program could not be started, ended with another status than 0, or was killed at its timeout (status None)."""

    def __init__(self, argv: Sequence[str], status: int | None, stdout: str, stderr: str, reason: str) -> None:
        super().__init__(f"{' '.join(argv)}: {reason}")
        self.argv = tuple(argv)
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        self.reason = reason


async def run(argv: Sequence[str], *, timeout_seconds: float, stdin: bytes | None = None) -> CommandResult:
    """Run a program to its end and return its output. Raises CommandFailed."""
    try:
        process = await subprocess.create_subprocess_exec(
            *argv,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
        )
    except OSError as error:
        raise CommandFailed(argv, None, "", "", f"cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_seconds):
            out, err = await process.communicate(stdin)
    except TimeoutError as error:
        raise CommandFailed(argv, None, "", "", f"did not end within {timeout_seconds:g} s") from error
    finally:
        # Also when the caller is cancelled: never leave a child behind.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
    if process.returncode != 0:
        said = " ".join((stderr or stdout).split())[:_MAX_MESSAGE] or "it said nothing"
        raise CommandFailed(argv, process.returncode, stdout, stderr, f"ended with status {process.returncode}: {said}")
    return CommandResult(stdout, stderr)
