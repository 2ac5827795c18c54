"""Owns how the facade serves connections: errors that aiohttp makes have the API's form, an end loses no request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, cast

import structlog
from aiohttp import EMPTY_PAYLOAD, web

from facade.middleware.requests import finish, problem_of_http, request_id_for
from facade.problems import Problem, malformed, problem_response, unexpected
from facade.sessions.fastpath import FastPath, Head

__all__ = ["Runner"]

_log = structlog.get_logger()

# Longer than proxies keep idle connections for, so that it is never the facade that closes under a request.
_KEEPALIVE_SECONDS = 75.0
# At the end, connections without a request get so long to send one: whoever has just connected does so at once.
_FIRST_REQUEST_SECONDS = 1.0
# What asyncio takes at most, in turns of its loop, from accepting a connection to telling us of it.
_TURNS_TO_CONNECT = 3
# aiohttp's own way to end connections, which drops what it has not read; only for what has had its time.
_CUT_OFF_SECONDS = 0.1
# As much as Caddy lets through: the address and cookies of a session's page come along when Caddy asks about it.
_HEADER_MAX_BYTES = 64 * 1024


class _Parser:
    """aiohttp's parser of a connection, without the requests that have been answered already."""

    __slots__ = ("_answer", "_parser")

    def __init__(self, parser: Any, answer: Callable[[Head, object], bool]) -> None:
        self._parser = parser
        self._answer = answer

    def feed_data(self, data: bytes) -> tuple[Any, bool, bytes]:
        messages, upgraded, tail = self._parser.feed_data(data)
        if len(messages) == 1 and self._answer(*messages[0]):
            self._parser.message_consumed()
            messages = ()
        return messages, upgraded, tail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


class _Connection(web.RequestHandler):
    """One connection. Requests that cannot be parsed, and exceptions that no middleware sees, become problems.

    A request that finds the connection idle is offered to the fast path before aiohttp makes anything of it.
    """

    __slots__ = ("_fast_path",)

    def __init__(self, manager: _Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._fast_path = manager.fast_path
        self._parser = cast("Any", _Parser(self._parser, self._answer_at_once))

    def _answer_at_once(self, head: Head, body: object) -> bool:
        """Whether the request has been answered; it is aiohttp's otherwise."""
        waiter, server, transport = self._waiter, self._manager, self.transport
        # Idle: aiohttp waits for a request, or is about to wait for the first one.
        idle = not self._messages and (not self._request_count if waiter is None else not waiter.done())
        if not idle or body is not EMPTY_PAYLOAD or self.writing_paused:
            return False
        if not isinstance(server, _Server) or transport is None or transport.is_closing():
            return False
        last = bool(head.should_close) or server.draining
        answer = self._fast_path.answer(head, last=last)
        if answer is None:
            return False
        self._request_count += 1
        transport.write(answer)
        if last:
            self.force_close()
        else:
            self._next_keepalive_close_time = self._loop.time() + _KEEPALIVE_SECONDS
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        del message  # it repeats what was sent, cookies and passwords included
        if request.writer.output_size > 0:
            raise ConnectionError("cannot answer with an error: part of another answer has been sent already")
        if status >= 500:
            _log.error("http.failed", exc_info=exc)
            problem = unexpected()
        else:
            _log.info("http.malformed", reason=type(exc).__name__)
            problem = malformed()
        response = self._answer(request, problem)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):
            resp = self._answer(request, problem_of_http(resp))
        # The last answer of a connection says that it is the last one; requests that wait behind it come first.
        if isinstance(self._manager, _Server) and self._manager.draining and not self._messages:
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def close_idle(self) -> None:
        """Close it if no request has come since the last one."""
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def _answer(self, request: web.BaseRequest, problem: Problem) -> web.Response:
        request_id = request_id_for(request.headers)
        response = problem_response(problem, instance=request.path, request_id=request_id)
        finish(response, request_id)
        return response


class _Server(web.Server):
    """Makes our connections in place of aiohttp's."""

    def __init__(self, made: web.Server, fast_path: FastPath, options: dict[str, Any]) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **options,
        )
        self.fast_path = fast_path
        self._options = options
        self._open: set[web.RequestHandler] = set()
        self._gone = asyncio.Event()
        self.draining = False

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._options)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open.add(handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open.discard(handler)
        if not self._open:
            self._gone.set()

    async def drain(self, seconds: float) -> None:
        """Answer everybody who is connected, and close each connection after its answer, for so long at most."""
        for _ in range(_TURNS_TO_CONNECT):
            await asyncio.sleep(0)
        self.draining = True
        if not await self._all_gone(min(seconds, _FIRST_REQUEST_SECONDS)):
            for connection in list(self._open):
                cast("_Connection", connection).close_idle()
            await self._all_gone(seconds - _FIRST_REQUEST_SECONDS)

    async def _all_gone(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._open:
                    self._gone.clear()
                    await self._gone.wait()
        return not self._open


class Runner(web.AppRunner):
    """Runs an application on our connections. Bodies are never decompressed, so that none can grow in memory."""

    def __init__(self, app: web.Application, fast_path: FastPath, *, drain_seconds: float) -> None:
        self._options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": _KEEPALIVE_SECONDS,
            "max_line_size": _HEADER_MAX_BYTES,
            "max_field_size": _HEADER_MAX_BYTES,
        }
        self._fast_path = fast_path
        self._drain_seconds = drain_seconds
        super().__init__(app, shutdown_timeout=_CUT_OFF_SECONDS, **self._options)

    async def stop_accepting(self) -> None:
        """Who connects from now on is not ours: the socket's backlog belongs to whoever listens next."""
        for site in list(self.sites):
            await site.stop()

    async def cleanup(self) -> None:
        """Stop accepting, answer whoever is connected, and end."""
        await self.stop_accepting()
        if isinstance(self.server, _Server):
            await self.server.drain(self._drain_seconds)
        await super().cleanup()

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._fast_path, self._options)
