"""Owns the aiohttp application of the socket: from a connection's peer to a method's answer or a coded error."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

import msgspec
import structlog
from aiohttp import web

from medforged.contract.errors import HTTP_STATUS, ErrorBody, ErrorCode
from medforged.contract.methods import (
    CORRELATION_HEADER,
    METHODS_BY_NAME,
    WATCH_ACCESS,
    WATCH_PATH,
    Access,
    Method,
)
from medforged.domain.errors import MedForgeError
from medforged.rpc.access import AccessPolicy
from medforged.rpc.errors import RpcError, code_of
from medforged.rpc.peercred import Peer, peer_of
from medforged.rpc.watch import WatchStream

__all__ = ["Handler", "RpcServer"]

Handler = Callable[[Any], Awaitable[msgspec.Struct]]

# Parameters are ids, enums and numbers; nothing legitimate comes near this.
_MAX_BODY_BYTES = 16 * 1024
_CORRELATION_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_encoder = msgspec.json.Encoder()


class RpcServer:
    """`handlers` gives each method of the table its implementation."""

    def __init__(self, handlers: Mapping[str, Handler], watch: WatchStream, policy: AccessPolicy) -> None:
        missing = METHODS_BY_NAME.keys() ^ handlers.keys()
        if missing:
            raise ValueError(f"handlers and method table differ: {', '.join(sorted(missing))}")
        self._handlers = handlers
        self._watch = watch
        self._policy = policy
        self._decoders = {name: msgspec.json.Decoder(method.params) for name, method in METHODS_BY_NAME.items()}
        self._log: Any = structlog.get_logger("medforged.rpc")
        self._accepting = True
        self._calls: set[asyncio.Task[msgspec.Struct]] = set()
        self.answered: Counter[tuple[str, ...]] = Counter()
        """How many calls were answered, by method and code; what calls no method that there is counts as `other`."""

    def application(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._answer_every_error])
        app.router.add_get(WATCH_PATH, self._serve_watch)
        app.router.add_post("/v1/{method}", self._serve_call)
        return app

    def stop_accepting(self) -> None:
        """New calls are refused from now on, and watch streams end; running calls go on."""
        self._accepting = False
        self._watch.close()

    async def drain(self, timeout_seconds: float) -> None:
        """Let running calls end by themselves for this long, then cancel them: their records are picked up later."""
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=timeout_seconds)
        for task in set(self._calls):
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _serve_watch(self, request: web.Request) -> web.StreamResponse:
        self._authorize(request, "watch", WATCH_ACCESS)
        self._refuse_when_stopping()
        return await self._watch.serve(request)

    async def _serve_call(self, request: web.Request) -> web.StreamResponse:
        method = METHODS_BY_NAME.get(request.match_info["method"])
        peer = self._authorize(request, request.match_info["method"], method.access if method else Access.FACADE)
        if method is None:
            raise RpcError(
                ErrorCode.UNKNOWN_METHOD,
                f"there is no method {request.match_info['method'][:80]!r}; see docs/reference/rpc.md",
            )
        self._refuse_when_stopping()
        params = self._params(method, await request.read())
        if method.audited:
            self._log.info("rpc.call", method=method.name, peer_uid=peer.uid, peer_pid=peer.pid)
        # A caller who goes away does not leave a create half-way: the call runs to its end regardless.
        task = asyncio.ensure_future(self._handlers[method.name](params))
        self._calls.add(task)
        task.add_done_callback(self._forget)
        result = await asyncio.shield(task)
        return web.Response(body=_encoder.encode(result), content_type="application/json")

    def _forget(self, task: asyncio.Task[msgspec.Struct]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here when the caller has gone; otherwise answered and logged below

    def _authorize(self, request: web.Request, what: str, needed: Access) -> Peer:
        connection = request.transport.get_extra_info("socket") if request.transport else None
        if connection is None:
            raise RpcError(ErrorCode.ACCESS_DENIED, "the connection is gone")
        # asyncio hands out a wrapper that offers getsockopt only.
        peer = peer_of(connection)
        level = self._policy.level(peer)
        if level is Access.NONE or level < needed:
            self._log.warning("rpc.denied", method=what[:80], peer_uid=peer.uid, peer_pid=peer.pid)
            raise RpcError(
                ErrorCode.ACCESS_DENIED,
                f"uid {peer.uid} may not call {what[:80]}; run this as root or as a member of the operator group",
            )
        return peer

    def _refuse_when_stopping(self) -> None:
        if not self._accepting:
            raise RpcError(ErrorCode.SHUTTING_DOWN, "the daemon is stopping; try again in a few seconds")

    def _params(self, method: Method[Any, Any], body: bytes) -> msgspec.Struct:
        try:
            params: msgspec.Struct = self._decoders[method.name].decode(body or b"{}")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RpcError(ErrorCode.BAD_REQUEST, f"cannot read the parameters of {method.name}: {error}") from error
        return params

    @web.middleware
    async def _answer_every_error(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get(CORRELATION_HEADER, "")
        correlation_id = given if _CORRELATION_ID.fullmatch(given) else str(uuid4())
        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            try:
                response = await handler(request)
            except RpcError as error:
                code, message = error.code, str(error)
            except MedForgeError as error:
                code, message = code_of(error), str(error)
            except web.HTTPRequestEntityTooLarge:
                code, message = ErrorCode.TOO_LARGE, f"the parameters are larger than {_MAX_BODY_BYTES} bytes"
            except web.HTTPException:
                code = ErrorCode.UNKNOWN_METHOD
                message = "call POST /v1/<method> or GET /v1/watch; see docs/reference/rpc.md"
            except Exception as error:  # noqa: BLE001 - the last line: a defect becomes a coded answer and a log entry
                self._log.error("rpc.internal_error", path=request.path[:80], exc_info=error)
                code, message = ErrorCode.INTERNAL, "internal error; the journal has the details"
            else:
                self.answered[_called(request), "ok"] += 1
                return response
            self.answered[_called(request), code.value] += 1
            return _refuse(code, message, correlation_id)


def _called(request: web.Request) -> str:
    """The method that a request calls."""
    if request.path == WATCH_PATH:
        return "watch"
    name = request.match_info.get("method", "")
    return name if name in METHODS_BY_NAME else "other"


def _refuse(code: ErrorCode, message: str, correlation_id: str) -> web.Response:
    body = ErrorBody(code=code, message=message, correlation_id=correlation_id)
    return web.Response(status=HTTP_STATUS[code], body=_encoder.encode(body), content_type="application/json")
