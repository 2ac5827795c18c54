"""Owns a container engine that a test scripts: HTTP on a Unix socket, with answers that can be wrong, late or never there."""

from __future__ import annotations

import asyncio
import re
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
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.answers: dict[str, tuple[int, Any]] = {"GET /version": (200, VERSION), "GET /info": (200, INFO)}
        self.requests: list[str] = []
        self._hanging: re.Pattern[str] | None = None
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._arrivals = asyncio.Condition()

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

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {re.sub(r'^/v[0-9.]+', '', request.path)}"
        async with self._arrivals:
            self.requests.append(line)
            self._arrivals.notify_all()
        if self._hanging is not None and self._hanging.search(line):
            await self._released.wait()
        status, body = self.answers.get(line, (404, {"message": f"no such thing: {line}"}))
        if isinstance(body, bytes):
            return web.Response(status=status, body=body)
        return web.json_response(body, status=status)
