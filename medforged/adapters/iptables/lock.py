"""Owns the lock that every iptables program takes before it changes the legacy tables.

A table is read, changed and written back as a whole, so two writers at once lose each other's rules. The iptables
programs agree on a lock file (iptables(8), XTABLES_LOCKFILE); python-iptables ignores it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from medforged.domain.errors import IsolationError

__all__ = ["LOCK_FILE", "xtables_lock"]

LOCK_FILE = Path("/run/xtables.lock")
# Shorter than the gap between two runs of a program in a loop: waiting in turn is not possible with a limit.
_PAUSE_SECONDS = 0.002


@contextlib.contextmanager
def xtables_lock(path: Path = LOCK_FILE, *, patience_seconds: float = 5.0) -> Iterator[None]:
    """Hold the lock. Blocks, so never call it on the event loop. Raises IsolationError when it stays taken."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise IsolationError(f"cannot change iptables: {path}: {error.strerror}; run as root") from error
    try:
        deadline = time.monotonic() + patience_seconds
        while not _taken(descriptor):
            if time.monotonic() > deadline:
                raise IsolationError(
                    f"cannot change iptables: another program has held {path} for {patience_seconds:g} s; "
                    f"find it with `fuser {path}`"
                )
            time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        os.close(descriptor)  # which also gives the lock back


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
