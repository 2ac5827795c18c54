"""Owns turning the domain's errors into the wire's codes, once."""

from __future__ import annotations

from medforged.contract.errors import ErrorCode
from medforged.domain import errors

__all__ = ["code_of"]

# Most specific first.
_CODES: tuple[tuple[type[errors.MedForgeError], ErrorCode], ...] = (
    (errors.SessionNotFound, ErrorCode.SESSION_NOT_FOUND),
    (errors.GpuNotFound, ErrorCode.GPU_NOT_FOUND),
    (errors.PackNotFound, ErrorCode.PACK_NOT_FOUND),
    (errors.TierUnavailable, ErrorCode.TIER_UNAVAILABLE),
    (errors.SessionLimitReached, ErrorCode.SESSION_LIMIT_REACHED),
    (errors.NoGpuAvailable, ErrorCode.NO_GPU_AVAILABLE),
    (errors.StoppedWhileStarting, ErrorCode.STOPPED_WHILE_STARTING),
    (errors.CreateFailed, ErrorCode.CREATE_FAILED),
    (errors.HostError, ErrorCode.HOST_FAILED),
)


def code_of(error: Exception) -> ErrorCode | None:
    """None for what is no error of the domain: a defect."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ErrorCode.INTERNAL if isinstance(error, errors.MedForgeError) else None
