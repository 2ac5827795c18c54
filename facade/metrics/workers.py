"""Owns what a scrape hears of all processes of the facade, whichever of them it meets.

Each process counts for itself and tells it on a socket of its own, in a folder that only the facade's user may enter.
The one that is scraped asks the others, and says of each whether it answered. The supervisor opens all of these sockets
before it forks, so that a worker that replaces another answers under the same number.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from facade.config import Metrics
from facade.listening import Listener, listen_for_metrics
from facade.metrics.collection import WORKER, WORKER_UP
from medforged.exposition import PATH, Metric, Read, exposing, labelled, merged, parsed

__all__ = ["Exposure"]

# A worker that does not answer in this time is told to be down, long before Prometheus gives up on the whole scrape.
_PATIENCE_SECONDS = 1.0
_BACKLOG = 16


class Exposure:
    """The sockets of a facade's metrics. Opened before the processes that serve them; closed after them."""

    def __init__(self, listener: Listener, folder: Path | None, own: dict[int, socket.socket]) -> None:
        self._listener = listener
        self._folder = folder
        # What each process, by its number, is asked on by the others; alone, there is nobody to ask.
        self._own = own

    @classmethod
    def open(cls, settings: Metrics, count: int) -> Exposure | None:
        """For so many processes; None where metrics are not asked for. Raises StartupFailed."""
        listener = listen_for_metrics(settings)
        if listener is None:
            return None
        if count == 1:
            return cls(listener, None, {})
        folder = Path(tempfile.mkdtemp(prefix="medforge-facade-"))
        made = cls(listener, folder, {})
        for number in range(1, count + 1):
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made._own[number] = opened
            opened.bind(str(made._path(number)))
            opened.listen(_BACKLOG)
            opened.setblocking(False)
        return made

    def close(self) -> None:
        """Remove what `open` has made."""
        self._listener.close()
        for opened in self._own.values():
            opened.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def told(self) -> str:
        """Where Prometheus reads."""
        return self._listener.told

    @asynccontextmanager
    async def serving(self, number: int, read: Read) -> AsyncIterator[None]:
        """Answer as the process of this number for as long as the context lasts; `read` tells what it has counted."""

        async def own() -> list[Metric]:
            families = [WORKER_UP.number(1), *await read()]
            return labelled(families, WORKER, str(number))

        async def everybody() -> list[Metric]:
            others = [other for other in self._own if other != number]
            told = await asyncio.gather(own(), *(self._ask(other) for other in others))
            return merged(told)

        async with AsyncExitStack() as stack:
            if number in self._own:
                await stack.enter_async_context(exposing(self._own[number], own))
            await stack.enter_async_context(exposing(self._listener.socket, everybody))
            yield

    async def _ask(self, number: int) -> list[Metric]:
        """What another process tells, or that it does not."""
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_SECONDS)
        connector = aiohttp.UnixConnector(str(self._path(number)))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
                http.get(f"http://worker{PATH}", raise_for_status=True) as response,
            ):
                return await asyncio.to_thread(parsed, await response.text())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return labelled([WORKER_UP.number(0)], WORKER, str(number))

    def _path(self, number: int) -> Path:
        if self._folder is None:
            raise AssertionError("a facade of one process asks nobody")
        return self._folder / f"{number}.sock"
