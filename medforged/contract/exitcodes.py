"""Owns the exit codes of every MedForge program; docs/reference/exit-codes.md tells them to operators."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """After sysexits.h, so that supervisors and scripts can tell kinds of failure apart."""

    OK = 0
    FAILED = 1
    """The request was understood and could not be done."""
    USAGE = 2
    """The command line is wrong (click's own code)."""
    NOT_FOUND = 66
    """What was named does not exist (EX_NOINPUT)."""
    UNAVAILABLE = 69
    """Something that is needed is not there: the daemon, Docker, a pool, a free address (EX_UNAVAILABLE)."""
    INTERNAL = 70
    """A defect in MedForge (EX_SOFTWARE)."""
    TEMPORARY = 75
    """Cannot be done now, can be tried again (EX_TEMPFAIL)."""
    NO_PERMISSION = 77
    """The caller may not do this (EX_NOPERM)."""
    CONFIG = 78
    """The configuration is wrong (EX_CONFIG)."""
