"""Owns the one error that the client raises."""

from __future__ import annotations

from medforged.contract.errors import ErrorCode

__all__ = ["DaemonError"]


class DaemonError(Exception):
    """The daemon refused, failed, or did not answer (`ErrorCode.UNREACHABLE`). The message is for people."""

    def __init__(
        self, code: ErrorCode, message: str, correlation_id: str = "", details: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.correlation_id = correlation_id
        self.details = details or {}
