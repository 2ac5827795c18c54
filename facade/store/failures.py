"""Owns what can be wrong with the database as a whole, as the rest of the facade hears of it."""

from __future__ import annotations

from medforged.contract.exitcodes import ExitCode

__all__ = ["DatabaseUnavailable", "Unusable"]


class DatabaseUnavailable(Exception):
    """The database does not answer, or cannot do now what it was asked; the same may work a moment later.

    The message is for the log: it names the database and the reason, never a password or a value.
    """


class Unusable(Exception):
    """The database cannot be used as it is. `reason` says why, `remedy` what to do; neither has a password in it."""

    def __init__(self, reason: str, remedy: str, exit_code: ExitCode = ExitCode.CONFIG) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy
        self.exit_code = exit_code
