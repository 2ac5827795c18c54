"""Owns the lines of the watch stream, `GET /v1/watch`.

The stream is NDJSON, one event a line, told apart by `type`. Without `since` it begins with every active session
(`session` events) and a `synced` event; then every change follows as it happens. With
`since=<revision>&epoch=<epoch>` it begins with what has changed since, ended sessions included. Another epoch means
another database: the daemon then answers as if `since` had not been given. `relist` in `synced` tells the reader that
the events before it were the whole list of active sessions, so that it forgets whatever else it knew. A `heartbeat`
comes at least every `HEARTBEAT_SECONDS`, so that silence means loss.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from medforged.contract.sessions import Session

__all__ = ["HEARTBEAT_SECONDS", "Heartbeat", "SessionChanged", "Synced", "WatchEvent"]

HEARTBEAT_SECONDS = 2.0


class SessionChanged(msgspec.Struct, frozen=True, kw_only=True, tag="session"):
    """A session is new or has changed; the record as it is now."""

    session: Session


class Synced(msgspec.Struct, frozen=True, kw_only=True, tag="synced"):
    """Everything up to `revision` has been told. `relist`: what came before is the whole list of active sessions."""

    epoch: UUID
    revision: int
    relist: bool


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """Nothing happened; the daemon is there, and its recovery loop is or is not (`recovery_alive`)."""

    revision: int
    recovery_alive: bool


WatchEvent = SessionChanged | Synced | Heartbeat
