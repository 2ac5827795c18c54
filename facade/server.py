"""Owns the HTTP server's own voice: what aiohttp answers before any handler runs has the API's form too."""

from __future__ import annotations

from typing import Any

import structlog
from aiohttp import web

from facade.middleware.requests import finish, problem_of_http, request_id_for
from facade.problems import Problem, problem_response

__all__ = ["Runner"]

_log = structlog.get_logger()

# Longer than proxies keep idle connections for, so that it is never the facade that closes under a request.
_KEEPALIVE_SECONDS = 75.0
# As much as Caddy lets through: the address and cookies of a session's page come along when Caddy asks about it.
_HEADER_MAX_BYTES = 64 * 1024


class _Connection(web.RequestHandler):
    """One connection. Requests that cannot be parsed, and exceptions that no middleware sees, become problems."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("cannot answer with an error: part of another answer has been sent already")
        if status >= 500:
            _log.error("http.failed", exc_info=exc)
            problem = Problem(500, "An unexpected error occurred.")
        else:
            _log.info("http.malformed", reason=type(exc).__name__, message=message)
            problem = Problem(400, "The request is not valid HTTP.")
        response = self._answer(request, problem)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):
            resp = self._answer(request, problem_of_http(resp))
        return await super().finish_response(request, resp, start_time)

    def _answer(self, request: web.BaseRequest, problem: Problem) -> web.Response:
        request_id = request_id_for(request)
        response = problem_response(problem, instance=request.path, request_id=request_id)
        finish(response, request_id)
        return response


class _Server(web.Server):
    """Makes our connections in place of aiohttp's."""

    def __init__(self, made: web.Server, options: dict[str, Any]) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **options,
        )
        self._options = options

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._options)


class Runner(web.AppRunner):
    """Runs an application on our connections. Bodies are never decompressed, so that none can grow in memory."""

    def __init__(self, app: web.Application, *, drain_seconds: float) -> None:
        self._options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": _KEEPALIVE_SECONDS,
            "max_line_size": _HEADER_MAX_BYTES,
            "max_field_size": _HEADER_MAX_BYTES,
        }
        super().__init__(app, shutdown_timeout=drain_seconds, **self._options)

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._options)
