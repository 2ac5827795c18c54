"""Owns the closed list of error codes that daemon and facade answer calls with, and the shape of an error."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = ["HTTP_STATUS", "ErrorBody", "ErrorCode"]


class ErrorCode(StrEnum):
    """Every code that a caller can meet. `docs/reference/rpc.md` is generated from this list."""

    ACCESS_DENIED = "access_denied"
    """The peer's user may not call this method."""
    UNKNOWN_METHOD = "unknown_method"
    """No method has this name; see the method table."""
    BAD_REQUEST = "bad_request"
    """The body is not the JSON that the method takes; the message names the field."""
    TOO_LARGE = "too_large"
    """The body is larger than any method's parameters can be."""
    SESSION_NOT_FOUND = "session_not_found"
    """No session has this id."""
    GPU_NOT_FOUND = "gpu_not_found"
    """No GPU has this id."""
    PACK_NOT_FOUND = "pack_not_found"
    """No pack has this id."""
    TIER_UNAVAILABLE = "tier_unavailable"
    """The tier is not enabled on this host."""
    SESSION_LIMIT_REACHED = "session_limit_reached"
    """The user already has as many active sessions as allowed."""
    NO_GPU_AVAILABLE = "no_gpu_available"
    """No enabled, healthy GPU is free; try again when a session has ended."""
    STOPPED_WHILE_STARTING = "stopped_while_starting"
    """The session was asked to stop before it was ready."""
    CREATE_FAILED = "create_failed"
    """The session could not be started; its record says why, and everything made for it is undone."""
    HOST_FAILED = "host_failed"
    """A part of the host (container engine, storage, GPU driver) failed; the message names it."""
    USER_NOT_FOUND = "user_not_found"
    """No account has this id or address."""
    EMAIL_TAKEN = "email_taken"
    """Another account has this address."""
    LAST_ADMIN = "last_admin"
    """Nobody would be left who can administer the site."""
    BUSY = "busy"
    """Too much is waiting to be done; try again in a few seconds."""
    SHUTTING_DOWN = "shutting_down"
    """The program is stopping and starts nothing new; try again in a few seconds."""
    UNREACHABLE = "unreachable"
    """Never sent: what the client raises when the socket does not answer."""
    INTERNAL = "internal"
    """A defect; the journal has the details under the correlation id."""


HTTP_STATUS: dict[ErrorCode, int] = {
    ErrorCode.ACCESS_DENIED: 403,
    ErrorCode.UNKNOWN_METHOD: 404,
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.SESSION_NOT_FOUND: 404,
    ErrorCode.GPU_NOT_FOUND: 404,
    ErrorCode.PACK_NOT_FOUND: 404,
    ErrorCode.TIER_UNAVAILABLE: 501,
    ErrorCode.SESSION_LIMIT_REACHED: 409,
    ErrorCode.NO_GPU_AVAILABLE: 409,
    ErrorCode.STOPPED_WHILE_STARTING: 409,
    ErrorCode.CREATE_FAILED: 500,
    ErrorCode.HOST_FAILED: 502,
    ErrorCode.USER_NOT_FOUND: 404,
    ErrorCode.EMAIL_TAKEN: 409,
    ErrorCode.LAST_ADMIN: 409,
    ErrorCode.BUSY: 503,
    ErrorCode.SHUTTING_DOWN: 503,
    ErrorCode.UNREACHABLE: 503,
    ErrorCode.INTERNAL: 500,
}


class ErrorBody(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """The JSON body of every answer that is not 2xx."""

    code: ErrorCode
    message: str
    correlation_id: str
    details: dict[str, str] = {}
