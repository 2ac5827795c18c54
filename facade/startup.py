"""Owns the error that ends the facade before it serves: one sentence for the operator, and an exit code."""

from __future__ import annotations

from medforged.contract.exitcodes import ExitCode

__all__ = ["StartupFailed"]


class StartupFailed(Exception):
    """The facade cannot start here; the message says why and what to do."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code
