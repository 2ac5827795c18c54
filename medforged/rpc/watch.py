"""Owns serving the watch stream (medforged/contract/watch.py says what it promises)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from uuid import UUID

import msgspec
from aiohttp import web

from medforged.calls.server import CallRefused
from medforged.contract.errors import ErrorCode
from medforged.contract.watch import HEARTBEAT_SECONDS, Heartbeat, SessionChanged, Synced, WatchEvent
from medforged.domain.sessions import Session
from medforged.ports.state import StateStore
from medforged.rpc.handlers.sessions import session_to_wire
from medforged.services.changes import ChangeFeed

__all__ = ["WatchStream"]

_encoder = msgspec.json.Encoder()
# A watcher that does not read for this long is cut off, and resumes from its last revision.
_WRITE_TIMEOUT_SECONDS = 10.0


class WatchStream:
    """Streams changes to any number of watchers until `close`."""

    def __init__(self, state: StateStore, feed: ChangeFeed, recovery_alive: Callable[[], bool]) -> None:
        self._state = state
        self._feed = feed
        self._recovery_alive = recovery_alive
        self._closing = False

    def close(self) -> None:
        """End all streams, so that the server can shut down."""
        self._closing = True
        self._feed.wake_all()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        since, epoch = _position(request)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(request)
        # A watcher that went away or stopped reading resumes by itself from its last revision.
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            await self._stream(response, since, epoch)
        return response

    async def _stream(self, response: web.StreamResponse, since: int | None, epoch: UUID | None) -> None:
        with self._feed.subscribe() as subscription:
            own_epoch = await self._state.epoch()
            relist = since is None or epoch != own_epoch
            revision = await self._state.revision()
            if relist or since is None or since > revision:
                relist, sessions = True, await self._state.active()
            else:
                sessions = await self._state.changed_since(since)
            await _write(response, *(_event(session) for session in sessions))
            revision = max([revision, *(session.revision for session in sessions)])
            await _write(response, Synced(epoch=own_epoch, revision=revision, relist=relist))
            # The half is for the way to the reader: silence must never last longer than promised.
            while not self._closing and not subscription.overrun:
                changed = [s for s in await subscription.take(HEARTBEAT_SECONDS / 2) if s.revision > revision]
                if changed:
                    revision = changed[-1].revision
                    await _write(response, *(_event(session) for session in changed))
                else:
                    await _write(response, Heartbeat(revision=revision, recovery_alive=self._recovery_alive()))


def _position(request: web.Request) -> tuple[int | None, UUID | None]:
    unknown = set(request.query) - {"since", "epoch"}
    if unknown:
        raise CallRefused(ErrorCode.BAD_REQUEST, f"unknown parameter {min(unknown)!r}; watch takes since and epoch")
    if ("since" in request.query) is not ("epoch" in request.query):
        raise CallRefused(ErrorCode.BAD_REQUEST, "since and epoch go together; give both or neither")
    if "since" not in request.query:
        return None, None
    try:
        since = int(request.query["since"])
        epoch = UUID(request.query["epoch"])
    except ValueError as error:
        raise CallRefused(ErrorCode.BAD_REQUEST, "since must be a whole number and epoch a UUID") from error
    if since < 0:
        raise CallRefused(ErrorCode.BAD_REQUEST, "since must not be negative")
    return since, epoch


def _event(session: Session) -> SessionChanged:
    return SessionChanged(session=session_to_wire(session))


async def _write(response: web.StreamResponse, *events: WatchEvent) -> None:
    if events:
        async with asyncio.timeout(_WRITE_TIMEOUT_SECONDS):
            await response.write(b"".join(_encoder.encode(event) + b"\n" for event in events))
