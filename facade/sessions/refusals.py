"""Owns what the public is told when the daemon refuses, fails or does not answer: one entry for each of its codes."""

from __future__ import annotations

import structlog

from facade.problems import Problem
from medforged.client import DaemonError
from medforged.contract.errors import ErrorCode

__all__ = ["problem_of", "refusals", "session_not_found"]

_log = structlog.get_logger()

_AWAY = "The session service does not answer; try again in a few seconds."
_DEFECT = "An unexpected error occurred."

# Code -> status, detail, seconds after which trying again makes sense (0: no such time is known).
_TOLD: dict[ErrorCode, tuple[int, str, int]] = {
    ErrorCode.ACCESS_DENIED: (500, _DEFECT, 0),
    ErrorCode.UNKNOWN_METHOD: (500, _DEFECT, 0),
    ErrorCode.BAD_REQUEST: (500, _DEFECT, 0),
    ErrorCode.TOO_LARGE: (500, _DEFECT, 0),
    ErrorCode.SESSION_NOT_FOUND: (404, "Session not found.", 0),
    ErrorCode.GPU_NOT_FOUND: (500, _DEFECT, 0),
    ErrorCode.PACK_NOT_FOUND: (404, "Pack not found.", 0),
    ErrorCode.TIER_UNAVAILABLE: (501, "The private tier is not available.", 0),
    ErrorCode.SESSION_LIMIT_REACHED: (409, "Concurrent session limit reached", 0),
    ErrorCode.NO_GPU_AVAILABLE: (409, "No GPUs available", 0),
    ErrorCode.STOPPED_WHILE_STARTING: (409, "The session was stopped while it was starting.", 0),
    ErrorCode.CREATE_FAILED: (500, "Failed to start session runtime.", 0),
    ErrorCode.HOST_FAILED: (502, "The host could not do this; try again in a few seconds.", 0),
    # The daemon knows no accounts, and lets calls wait.
    ErrorCode.USER_NOT_FOUND: (500, _DEFECT, 0),
    ErrorCode.EMAIL_TAKEN: (500, _DEFECT, 0),
    ErrorCode.LAST_ADMIN: (500, _DEFECT, 0),
    ErrorCode.BUSY: (503, _AWAY, 2),
    ErrorCode.SHUTTING_DOWN: (503, "The session service is restarting; try again in a few seconds.", 2),
    ErrorCode.UNREACHABLE: (503, _AWAY, 2),
    ErrorCode.INTERNAL: (500, _DEFECT, 0),
}
# Whatever goes wrong on the host while a session starts is told in the same words (contract.md section 3).
_WHILE_STARTING = frozenset({ErrorCode.HOST_FAILED, ErrorCode.INTERNAL})
_ALWAYS = (ErrorCode.HOST_FAILED, ErrorCode.SHUTTING_DOWN, ErrorCode.UNREACHABLE)
# The caller's own doing, not worth an operator's attention.
_ORDINARY = frozenset(
    {
        ErrorCode.SESSION_NOT_FOUND,
        ErrorCode.PACK_NOT_FOUND,
        ErrorCode.TIER_UNAVAILABLE,
        ErrorCode.SESSION_LIMIT_REACHED,
        ErrorCode.NO_GPU_AVAILABLE,
        ErrorCode.STOPPED_WHILE_STARTING,
    }
)


def problem_of(error: DaemonError, *, starting: bool = False) -> Problem:
    """The problem for the caller; the daemon's own words go to the log, for they may name what is on the host."""
    log = _log.info if error.code in _ORDINARY else _log.error
    log("daemon.refused", code=error.code.value, message=error.message)
    return _problem(ErrorCode.CREATE_FAILED if starting and error.code in _WHILE_STARTING else error.code)


def refusals(*codes: ErrorCode) -> tuple[Problem, ...]:
    """What a route that asks the daemon can answer: these, and what every call can come to."""
    return tuple(_problem(code) for code in (*codes, *_ALWAYS))


def session_not_found() -> Problem:
    """Another's session is answered like none."""
    return _problem(ErrorCode.SESSION_NOT_FOUND)


def _problem(code: ErrorCode) -> Problem:
    status, detail, retry_after = _TOLD[code]
    return Problem(status, detail, headers={"Retry-After": str(retry_after)} if retry_after else None)
