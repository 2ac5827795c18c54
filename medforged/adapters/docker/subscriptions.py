"""Owns who follows the engine's events: the subscriptions that are open, from when on they hear, and their end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from medforged.adapters.docker.engine import Connection, Engine
from medforged.adapters.docker.events import container_event, events_request
from medforged.adapters.docker.streams import ACTION, EventStream
from medforged.domain.containers import ContainerEvent
from medforged.domain.errors import ContainerUnavailable

__all__ = ["EngineEvents"]

# The engine begins its answer a moment before it begins to listen for the client (moby's `getEvents`), and then tells
# what it remembers since a given time. Both read the host's clock; the second is for a small jump of it.
_BEFORE_SECONDS = 2.0


class EngineEvents:
    """Subscriptions to what happens in an engine. Raises ContainerUnavailable, and what a question to it raises."""

    def __init__(self, engine: Engine, instance: str) -> None:
        self._engine = engine
        self._instance = instance
        self._streams: set[EventStream] = set()
        self._closed = False

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[ContainerEvent]]:
        at = await self._engine.ask(ACTION, "events", _met)
        stream = EventStream(
            self._engine.socket,
            events_request(at.api_version, since=time.time() - _BEFORE_SECONDS),
            partial(container_event, instance=self._instance),
            seconds=self._engine.question_seconds,
        )
        self._streams.add(stream)
        try:
            if self._closed:
                raise _closed()
            await stream.open()
            yield stream
        finally:
            self._streams.discard(stream)
            stream.close()

    def close(self) -> None:
        """End every subscription."""
        self._closed = True
        for stream in self._streams:
            stream.close(_closed())


def _met(at: Connection) -> Connection:
    """The engine that answers now, which need not be the one that was met earlier."""
    at.client.ping()
    return at


def _closed() -> ContainerUnavailable:
    return ContainerUnavailable(f"cannot {ACTION}: the container adapter has been closed")
