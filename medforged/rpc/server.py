"""Owns what the daemon's socket answers: the methods of its table, and the watch stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from aiohttp import web

from medforged.calls.access import AccessPolicy
from medforged.calls.server import CallServer, Handler, Program
from medforged.contract.methods import METHODS, WATCH_ACCESS, WATCH_PATH
from medforged.rpc.errors import code_of
from medforged.rpc.watch import WatchStream

__all__ = ["RpcServer"]

_DAEMON = Program("daemon", "medforged.rpc", "call POST /v1/<method> or GET /v1/watch; see docs/reference/rpc.md")


class RpcServer:
    """`handlers` gives each method of the table its implementation."""

    def __init__(self, handlers: Mapping[str, Handler], watch: WatchStream, policy: AccessPolicy) -> None:
        self._calls = CallServer(_DAEMON, METHODS, handlers, policy, code_of)
        self._watch = watch

    @property
    def answered(self) -> Counter[tuple[str, ...]]:
        """How many calls were answered, by method (or `watch`) and code; what calls none that there is is `other`."""
        return self._calls.answered

    def application(self) -> web.Application:
        app = self._calls.application()
        app.router.add_get(WATCH_PATH, self._serve_watch, name="watch")
        return app

    def stop_accepting(self) -> None:
        """New calls are refused from now on, and watch streams end; running calls go on."""
        self._calls.stop_accepting()
        self._watch.close()

    async def drain(self, timeout_seconds: float) -> None:
        """Let running calls end by themselves for this long, then cancel them: their records are picked up later."""
        await self._calls.drain(timeout_seconds)

    async def _serve_watch(self, request: web.Request) -> web.StreamResponse:
        self._calls.authorize(request, "watch", WATCH_ACCESS)
        self._calls.refuse_when_stopping()
        return await self._watch.serve(request)
