"""Owns what the operator scripts share: saying things, failing with one sentence, running programs, waiting."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]

# After sysexits.h, as in docs/reference/exit-codes.md.
UNAVAILABLE = 69
NO_PERMISSION = 77

_start = time.monotonic()


class Failure(Exception):
    """One sentence for the operator, and the exit code that goes with it."""

    def __init__(self, message: str, code: int = UNAVAILABLE) -> None:
        super().__init__(message)
        self.code = code


def say(text: str) -> None:
    """Progress, with the seconds since the start, on standard error."""
    print(f"[{time.monotonic() - _start:6.1f}s] {text}", file=sys.stderr, flush=True)


def fail(error: Failure) -> NoReturn:
    print(f"cannot go on: {error}", file=sys.stderr)
    sys.exit(error.code)


def run(
    argv: Sequence[str | Path], *, log: Path | None = None, env: dict[str, str] | None = None, check: bool = True
) -> str:
    """Run a program and return what it wrote; its output goes to `log` as well. Raises Failure."""
    full = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(
            [str(part) for part in argv],
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=full,
        )
    except OSError as error:
        raise Failure(f"{argv[0]} cannot be started: {error.strerror}") from error
    if log is not None:
        with log.open("a") as out:
            out.write(f"$ {' '.join(str(part) for part in argv)}\n{done.stdout}")
    if check and done.returncode != 0:
        where = f" (whole output: {log})" if log else ""
        last = "\n  ".join(done.stdout.strip().splitlines()[-8:])
        raise Failure(f"`{' '.join(str(part) for part in argv)}` ended with {done.returncode}{where}:\n  {last}")
    return done.stdout


def succeeds(argv: Sequence[str | Path]) -> bool:
    """Whether a program exists and ends with 0."""
    try:
        return (
            subprocess.run(
                [str(part) for part in argv],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=60,
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def wait_for(what: str, condition: Callable[[], bool], seconds: float, remedy: str) -> None:
    """Wait until a condition holds. Raises Failure with the remedy after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"{what} did not happen within {seconds:g} s; {remedy}")
        time.sleep(0.1)
