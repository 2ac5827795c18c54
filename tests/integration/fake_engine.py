"""Owns a container engine that a test scripts: HTTP on a Unix socket, with answers that can be wrong, late or never there."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

VERSION = {"Version": "99.0", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
INFO = {"SecurityOptions": ["name=seccomp,profile=default"]}


class FakeEngine:
    """Serve on `socket` between `start` and `stop`.

    `answers` maps "<METHOD> <path without version>" to a status and a JSON body. A request whose line matches
    `hanging` waits for `release`; `requests` has every line in the order of arrival.

    `GET /events` is answered by a stream, as by a real engine: the headers first, then what has happened since the time
    that the client asks for, then what happens. `let_nobody_listen` keeps it at the headers until `let_listen`.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.answers: dict[str, tuple[int, Any]] = {"GET /version": (200, VERSION), "GET /info": (200, INFO)}
        self.requests: list[str] = []
        self._hanging: re.Pattern[str] | None = None
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._arrivals = asyncio.Condition()
        self._happened: list[tuple[float, bytes]] = []
        self._listening = asyncio.Event()
        self._listening.set()
        self._streams: list[tuple[web.Request, asyncio.Queue[bytes]]] = []

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        self.release()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.socket.unlink(missing_ok=True)

    def hang(self, pattern: str) -> None:
        self._hanging = re.compile(pattern)
        self._released.clear()

    def release(self) -> None:
        self._hanging = None
        self._released.set()

    async def arrived(self, matches: Callable[[str], bool], times: int = 1) -> None:
        """Wait for that many requests whose line matches."""
        async with self._arrivals, asyncio.timeout(20):
            await self._arrivals.wait_for(lambda: sum(map(matches, self.requests)) >= times)

    def happen(self, *events: bytes | dict[str, Any], at: float | None = None) -> None:
        """Tell everybody who listens; `at`, in seconds since 1970, is now unless it is told otherwise."""
        for event in events:
            line = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
            self._happened.append((time.time() if at is None else at, line))
            for _, queue in self._streams:
                queue.put_nowait(line)

    def let_nobody_listen(self) -> None:
        self._listening.clear()

    def let_listen(self) -> None:
        self._listening.set()

    @property
    def listeners(self) -> int:
        """How many streams are open at the other end."""
        return sum(request.transport is not None and not request.transport.is_closing() for request, _ in self._streams)

    def cut(self) -> None:
        """Close every stream in the middle of it, as the end of a process does."""
        for request, _ in self._streams:
            if request.transport is not None:
                request.transport.abort()

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await self._listening.wait()
        stream = (request, asyncio.Queue[bytes]())
        self._streams.append(stream)
        try:
            since = float(request.query.get("since", "inf"))
            for line in [line for at, line in self._happened if at >= since]:
                await response.write(line)
            while True:
                await response.write(await stream[1].get())
        finally:
            self._streams.remove(stream)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {re.sub(r'^/v[0-9.]+', '', request.path)}"
        async with self._arrivals:
            self.requests.append(line)
            self._arrivals.notify_all()
        if self._hanging is not None and self._hanging.search(line):
            await self._released.wait()
        if line == "GET /events" and line not in self.answers:
            return await self._tell(request)
        status, body = self.answers.get(line, (404, {"message": f"no such thing: {line}"}))
        if isinstance(body, bytes):
            return web.Response(status=status, body=body)
        return web.json_response(body, status=status)
