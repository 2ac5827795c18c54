"""Owns which exit code a failure ends with: the table from the socket's error codes, and what a shell knows by itself.

docs/reference/exit-codes.md is generated from here and from medforged/contract/exitcodes.py.
"""

from __future__ import annotations

import errno
from typing import Final

from medforged.contract.doctor import Kind
from medforged.contract.errors import ErrorCode
from medforged.contract.exitcodes import ExitCode

__all__ = ["BROKEN_PIPE", "DIAGNOSIS_CODES", "EXIT_CODES", "INTERRUPTED", "Failure", "exit_code"]

# What a shell reports for a program that SIGINT or SIGPIPE ended: 128 plus the signal's number.
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

EXIT_CODES: Final[dict[ErrorCode, ExitCode]] = {
    ErrorCode.ACCESS_DENIED: ExitCode.NO_PERMISSION,
    ErrorCode.UNKNOWN_METHOD: ExitCode.UNAVAILABLE,
    ErrorCode.BAD_REQUEST: ExitCode.USAGE,
    ErrorCode.TOO_LARGE: ExitCode.USAGE,
    ErrorCode.SESSION_NOT_FOUND: ExitCode.NOT_FOUND,
    ErrorCode.GPU_NOT_FOUND: ExitCode.NOT_FOUND,
    ErrorCode.PACK_NOT_FOUND: ExitCode.NOT_FOUND,
    ErrorCode.TIER_UNAVAILABLE: ExitCode.UNAVAILABLE,
    ErrorCode.SESSION_LIMIT_REACHED: ExitCode.TEMPORARY,
    ErrorCode.NO_GPU_AVAILABLE: ExitCode.TEMPORARY,
    ErrorCode.STOPPED_WHILE_STARTING: ExitCode.FAILED,
    ErrorCode.CREATE_FAILED: ExitCode.FAILED,
    ErrorCode.HOST_FAILED: ExitCode.FAILED,
    ErrorCode.USER_NOT_FOUND: ExitCode.NOT_FOUND,
    ErrorCode.EMAIL_TAKEN: ExitCode.FAILED,
    ErrorCode.LAST_ADMIN: ExitCode.FAILED,
    ErrorCode.BUSY: ExitCode.TEMPORARY,
    ErrorCode.SHUTTING_DOWN: ExitCode.TEMPORARY,
    ErrorCode.UNREACHABLE: ExitCode.UNAVAILABLE,
    ErrorCode.INTERNAL: ExitCode.INTERNAL,
}

# What `medforgectl doctor` ends with; where several kinds have failed, the first decides: what others depend on.
DIAGNOSIS_CODES: Final[dict[Kind, ExitCode]] = {
    Kind.CONFIGURATION: ExitCode.CONFIG,
    Kind.PERMISSIONS: ExitCode.NO_PERMISSION,
    Kind.HOST: ExitCode.UNAVAILABLE,
    Kind.SERVICES: ExitCode.TEMPORARY,
    Kind.SITE: ExitCode.FAILED,
}


class Failure(Exception):
    """A command could not be done: one sentence for people, and the code that the program ends with."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def exit_code(code: ErrorCode, cause: BaseException | None = None) -> ExitCode:
    """The exit code of an answer from the socket.

    A socket that the kernel did not let us open is told as `UNREACHABLE`; `cause` tells it from one where nothing
    listens, because a script has to do something else about it.
    """
    if code is ErrorCode.UNREACHABLE and getattr(cause, "errno", None) in (errno.EACCES, errno.EPERM):
        return ExitCode.NO_PERMISSION
    return EXIT_CODES[code]
