"""Owns the one door to journalctl, which takes the place of medforgectl: pager, colours and following are its own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cli.exitcodes import Failure
from medforged.contract.exitcodes import ExitCode

__all__ = ["become_journalctl"]

# Not the caller's own PATH: who operates a host as root runs the distribution's program.
_WHERE = "/usr/bin:/bin"
_JOURNALS = (Path("/var/log/journal"), Path("/run/log/journal"))


def become_journalctl(arguments: Sequence[str]) -> NoReturn:
    """Replace this process. Raises Failure where this host has no journal."""
    program = shutil.which("journalctl", path=_WHERE)
    if program is None or not any(journal.is_dir() for journal in _JOURNALS):
        raise Failure(
            "this host has no journal: daemon and facade write their lines to standard error; "
            "after ops/up they are in /var/log/medforge",
            ExitCode.UNAVAILABLE,
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, ["journalctl", *arguments])
