"""Owns one stream of the engine's events: its connection, the thread that reads it, and the way from there to the loop.

Not through docker-py, whose stream is opened without a time limit, and ends alike whether it was left or lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from socket import AF_UNIX, SHUT_RDWR, SOCK_STREAM, socket
from typing import Any

import structlog

from medforged.adapters.docker.answers import Senseless
from medforged.adapters.docker.failures import translated
from medforged.domain.containers import ContainerEvent
from medforged.domain.errors import ContainerError, ContainerUnavailable

__all__ = ["ACTION", "MAX_LINE_BYTES", "MAX_WAITING_EVENTS", "EventStream"]

ACTION = "follow the containers"
"""Completes "cannot …" in messages."""

MAX_LINE_BYTES = 1 << 20
# A reader that is so far behind is better off with a listing. The engine itself keeps 1024 for a slow client.
MAX_WAITING_EVENTS = 1024
_SLACK_SECONDS = 1.0
_MAX_REFUSAL_BYTES = 400


class EventStream:
    """The events of one subscription, as an asynchronous iterator for one reader.

    The thread is one of its own, and not of the bounded number for calls: it lives as long as the stream. It is a
    daemon thread and blocks in nothing but its socket, which `close` shuts down. `request` is the path to ask for,
    `read` makes an event of a line; `seconds` bounds the opening, and nothing bounds silence after that.
    A wait that is cancelled loses no event.
    """

    def __init__(
        self, path: Path, request: str, read: Callable[[bytes], ContainerEvent | None], *, seconds: float
    ) -> None:
        self._path = path
        self._request = request
        self._read = read
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._lock = threading.Lock()  # for what follows, which the thread and the loop share
        self._connection: socket | None = None
        self._opened = False
        self._events: deque[ContainerEvent] = deque()
        self._ended = False
        self._loss: ContainerError | None = None  # why it ended, unless its reader wanted it to
        self._log: Any = structlog.get_logger("medforged")

    async def open(self) -> None:
        """Return once the engine has begun to answer. Raises ContainerUnavailable."""
        threading.Thread(target=self._work, name="docker-events", daemon=True).start()
        try:
            async with asyncio.timeout(self._seconds + _SLACK_SECONDS):
                while not self._opened and not self._ended:
                    await self._next_news()
        except TimeoutError as error:
            raise ContainerUnavailable(
                f"cannot {ACTION}: the container engine did not answer within {self._seconds:g} s; "
                "see `systemctl status docker`"
            ) from error
        if self._loss is not None and not self._opened:
            raise self._loss

    def close(self, why: ContainerUnavailable | None = None) -> None:
        """End the stream and its thread. Whoever still reads finds the end, or is told why; safe to call twice."""
        self._finish(why, drop=True)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> ContainerEvent:
        while True:
            with self._lock:
                if self._events:
                    return self._events.popleft()
                if self._ended:
                    raise self._loss or StopAsyncIteration
            await self._next_news()

    async def _next_news(self) -> None:
        await self._news.wait()
        self._news.clear()

    # What the thread does.

    def _work(self) -> None:
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001 - handed over, not swallowed: the reader raises it
            self._finish(error if isinstance(error, ContainerError) else translated(ACTION, error, self._path))

    def _follow(self) -> None:
        with socket(AF_UNIX, SOCK_STREAM) as connection:
            connection.settimeout(self._seconds)
            with self._lock:
                if self._ended:
                    return
                self._connection = connection
            try:
                connection.connect(str(self._path))
                with _answer(connection, self._request) as response:
                    connection.settimeout(None)
                    self._opened = True
                    self._tell()
                    for line in _lines(response):
                        self._take(line)
            finally:
                with self._lock:
                    self._connection = None
        raise ContainerUnavailable(
            f"cannot {ACTION}: the container engine at {self._path} has ended the stream; see `systemctl status docker`"
        )

    def _take(self, line: bytes) -> None:
        try:
            event = self._read(line)
        except Senseless as error:
            self._log.warning("container.event.skipped", error=str(error), size_bytes=len(line))
            return
        if event is None:
            return
        with self._lock:
            if self._ended:
                return
            behind = len(self._events) >= MAX_WAITING_EVENTS
            if not behind:
                self._events.append(event)
        if behind:
            loss = f"cannot {ACTION}: {MAX_WAITING_EVENTS} events wait to be looked at; a listing tells more"
            self._finish(ContainerUnavailable(loss), drop=True)
        else:
            self._tell()

    def _tell(self) -> None:
        self._loop.call_soon_threadsafe(self._news.set)

    def _finish(self, loss: ContainerError | None, *, drop: bool = False) -> None:
        """From either side; the first counts. What was told before a loss is still read, unless it is to be dropped."""
        with self._lock:
            if not self._ended:
                self._ended, self._loss = True, loss
            if drop:
                self._events.clear()
            if self._connection is not None:
                # It wakes the thread, which then closes it: closed here, its number could be another file's by then.
                with contextlib.suppress(OSError):  # not connected, or not any more
                    self._connection.shutdown(SHUT_RDWR)
        with contextlib.suppress(RuntimeError):  # the loop has been closed, and nobody waits any more
            self._tell()


def _answer(connection: socket, request: str) -> HTTPResponse:
    """The answer, once it has begun. Raises ContainerUnavailable for a refusal, OSError and HTTPException."""
    client = HTTPConnection("docker")
    client.sock = connection
    client.request("GET", request)
    response = client.getresponse()
    if response.status == 200:
        return response
    with response:
        words = " ".join(response.read(_MAX_REFUSAL_BYTES).decode(errors="replace").split())
    raise ContainerUnavailable(
        f"cannot {ACTION}: the container engine refused it ({response.status}): {words}; see `systemctl status docker`"
    )


def _lines(response: HTTPResponse) -> Iterator[bytes]:
    """Each line until the stream ends, however it ends; one that is too long comes in pieces, which make no sense."""
    with contextlib.suppress(OSError, HTTPException):
        while line := response.readline(MAX_LINE_BYTES):
            if not line.isspace():
                yield line
