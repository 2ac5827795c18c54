"""Owns following the watch stream for as long as the reader lives, across restarts of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from uuid import UUID

from medforged.client.daemon import DaemonClient
from medforged.client.errors import DaemonError
from medforged.contract.watch import Heartbeat, SessionChanged, Synced, WatchEvent

__all__ = ["watch_forever"]

_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 1.0


async def watch_forever(client: DaemonClient) -> AsyncGenerator[WatchEvent | DaemonError, None]:
    """Every event, resumed after each loss from the last revision seen; a loss itself is yielded as the DaemonError.

    Retries wait from 50 ms, doubling up to 1 s, so that a restarted daemon is heard again within about a second.
    """
    revision: int | None = None
    epoch: UUID | None = None
    retry = _FIRST_RETRY_SECONDS
    while True:
        try:
            async with contextlib.aclosing(client.watch(revision, epoch)) as events:
                async for event in events:
                    retry = _FIRST_RETRY_SECONDS
                    yield event
                    match event:
                        case Synced():
                            revision, epoch = event.revision, event.epoch
                        case SessionChanged() if revision is not None:
                            revision = max(revision, event.session.revision)
                        case Heartbeat() | SessionChanged():
                            pass
        except DaemonError as error:
            yield error
            await asyncio.sleep(retry)
            retry = min(retry * 2, _LAST_RETRY_SECONDS)
