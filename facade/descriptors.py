"""Owns how many connections the process may have open: as many as the system lets it, from the start."""

from __future__ import annotations

import resource

__all__ = ["allow_many"]


def allow_many() -> int:
    """Raise the soft limit of open files to the hard one; the limit.

    The soft limit is 1024 by habit, for the sake of programs that use select(2). At the limit nobody else is accepted.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
