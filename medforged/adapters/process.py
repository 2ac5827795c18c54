"""Owns the one door through which the daemon starts programs: argument lists, a timeout, a fixed environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["CommandFailed", "CommandMissing", "CommandResult", "CommandTimedOut", "Run", "run"]

# Programs are looked up here and nowhere else, and speak untranslated English.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "LANG": "C"}
_MAX_MESSAGE = 500
# How long a killed program may take to be gone. One that waits inside the kernel for a device takes longer.
_KILL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a program that ended with 0 wrote."""

    stdout: str
    stderr: str


class CommandFailed(Exception):
    """A program ended with another status than 0.

    `status` is negative for the number of the signal that ended it, and None in the two subclasses.
    """

    def __init__(self, argv: Sequence[str], status: int | None, stdout: str, stderr: str, reason: str) -> None:
        super().__init__(f"{' '.join(argv)}: {reason}")
        self.argv = tuple(argv)
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        self.reason = reason


class CommandMissing(CommandFailed):
    """A program could not be started: it is not installed, or may not be executed."""


class CommandTimedOut(CommandFailed):
    """A program did not end in time and was killed. What it was doing may have happened, or happen still."""


class Run(Protocol):
    """What `run` is to those who call it, so that their tests can answer in its place."""

    async def __call__(
        self, argv: Sequence[str], *, timeout_seconds: float, stdin: bytes | None = None, cwd: Path | None = None
    ) -> CommandResult: ...


async def run(
    argv: Sequence[str], *, timeout_seconds: float, stdin: bytes | None = None, cwd: Path | None = None
) -> CommandResult:
    """Run a program to its end, in `cwd` or else in `/`, and return its output.

    Raises CommandFailed. At the timeout, and when the caller is cancelled, the program is killed
    together with every program that it has started itself.
    """
    try:
        process = await _start(argv, stdin=stdin is not None, cwd=cwd)
    except OSError as error:
        raise CommandMissing(argv, None, "", "", f"cannot be started: {error.strerror}") from error
    ended = False
    try:
        async with asyncio.timeout(timeout_seconds):
            out, err = await process.communicate(stdin)
        ended = True
    except TimeoutError as error:
        raise CommandTimedOut(argv, None, "", "", f"did not end within {timeout_seconds:g} s") from error
    finally:
        if not ended:
            await _kill(process)
    stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
    if process.returncode != 0:
        raise CommandFailed(argv, process.returncode, stdout, stderr, _reason(process.returncode, stderr or stdout))
    return CommandResult(stdout, stderr)


async def _start(argv: Sequence[str], *, stdin: bool, cwd: Path | None) -> subprocess.Process:
    """Start a program. A caller that is cancelled meanwhile leaves none behind. Raises OSError."""
    starting = asyncio.create_task(
        subprocess.create_subprocess_exec(
            *argv,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd=cwd or "/",
            start_new_session=True,  # a process group of its own, to be killed as one; no signals from our terminal
        )
    )
    try:
        # Shielded: asyncio itself, cancelled here, would kill the program without its children and then wait, for
        # ever, until they let go of the pipes.
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_kill_started)
        await asyncio.wait({starting})
        if starting.exception() is None:
            await _kill(starting.result())
        raise


def _kill_started(starting: asyncio.Task[subprocess.Process]) -> None:
    """At once, whatever becomes of the one who was to wait for it."""
    if not starting.cancelled() and starting.exception() is None:
        _kill_group(starting.result())


async def _kill(process: subprocess.Process) -> None:
    """Kill the program's whole group: it may have ended itself, and a child of its own hold our pipes open."""
    _kill_group(process)
    if process.stdin is not None:
        process.stdin.close()
    # Read to the pipes' end, so that they are closed. One that sits in the kernel (a suspended pool) dies only when
    # that lets it go; nobody waits for that.
    with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
        async with asyncio.timeout(_KILL_SECONDS):
            await process.communicate()


def _kill_group(process: subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _reason(status: int | None, said: str) -> str:
    words = " ".join(said.split())[:_MAX_MESSAGE] or "it said nothing"
    if status is not None and status < 0:
        return f"was ended by signal {-status}: {words}"
    return f"ended with status {status}: {words}"
