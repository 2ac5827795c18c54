"""Owns answering the methods of one table on a Unix socket: from a connection's peer to a result or a coded error."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import msgspec
import structlog
from aiohttp import web

from medforged.calls.access import AccessPolicy
from medforged.calls.peercred import Peer, peer_of
from medforged.contract.errors import HTTP_STATUS, ErrorBody, ErrorCode
from medforged.contract.methods import CORRELATION_HEADER, Access, Method

__all__ = ["CallRefused", "CallServer", "Handler", "Program"]

Handler = Callable[[Any], Awaitable[msgspec.Struct]]
# The code that an error of the program's own stands for; None for one that nobody foresaw.
CodeOf = Callable[[Exception], ErrorCode | None]

# Parameters are ids, enums, numbers and short texts; nothing legitimate comes near this.
_MAX_BODY_BYTES = 16 * 1024
_CORRELATION_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_encoder = msgspec.json.Encoder()


class CallRefused(Exception):
    """A call that is refused, with the code and the sentence that the caller gets."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Program:
    """Who answers, as it is named in messages and in the log, and what can be asked of it."""

    name: str
    logger: str
    usage: str


class CallServer:
    """`handlers` gives each method of the table its implementation, `code_of` the codes of the errors they raise."""

    def __init__(
        self,
        program: Program,
        methods: Iterable[Method[Any, Any]],
        handlers: Mapping[str, Handler],
        policy: AccessPolicy,
        code_of: CodeOf,
    ) -> None:
        self._methods = {method.name: method for method in methods}
        missing = self._methods.keys() ^ handlers.keys()
        if missing:
            raise ValueError(f"handlers and method table differ: {', '.join(sorted(missing))}")
        self._program = program
        self._handlers = handlers
        self._policy = policy
        self._code_of = code_of
        self._decoders = {name: msgspec.json.Decoder(method.params) for name, method in self._methods.items()}
        self._log: Any = structlog.get_logger(program.logger)
        self._accepting = True
        self._calls: set[asyncio.Task[msgspec.Struct]] = set()
        self.answered: Counter[tuple[str, ...]] = Counter()
        """How many calls were answered, by method or the route's name, and code; what is neither counts as `other`."""

    def application(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._answer_every_error])
        app.router.add_post("/v1/{method}", self._serve_call)
        return app

    def stop_accepting(self) -> None:
        """New calls are refused from now on; running ones go on."""
        self._accepting = False

    async def drain(self, timeout_seconds: float) -> None:
        """Let running calls end by themselves for this long, then cancel them: their records are picked up later."""
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=timeout_seconds)
        for task in set(self._calls):
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def authorize(self, request: web.Request, what: str, needed: Access) -> Peer:
        """Who has connected. Raises CallRefused for who may not do this."""
        connection = request.transport.get_extra_info("socket") if request.transport else None
        if connection is None:
            raise CallRefused(ErrorCode.ACCESS_DENIED, "the connection is gone")
        # asyncio hands out a wrapper that offers getsockopt only.
        peer = peer_of(connection)
        level = self._policy.level(peer)
        if level is Access.NONE or level < needed:
            self._log.warning("rpc.denied", method=what[:80], peer_uid=peer.uid, peer_pid=peer.pid)
            raise CallRefused(
                ErrorCode.ACCESS_DENIED,
                f"uid {peer.uid} may not call {what[:80]}; run this as root or as a member of the operator group",
            )
        return peer

    def refuse_when_stopping(self) -> None:
        if not self._accepting:
            raise CallRefused(
                ErrorCode.SHUTTING_DOWN, f"the {self._program.name} is stopping; try again in a few seconds"
            )

    async def _serve_call(self, request: web.Request) -> web.StreamResponse:
        method = self._methods.get(request.match_info["method"])
        peer = self.authorize(request, request.match_info["method"], method.access if method else Access.FACADE)
        if method is None:
            raise CallRefused(
                ErrorCode.UNKNOWN_METHOD,
                f"there is no method {request.match_info['method'][:80]!r}; {self._program.usage}",
            )
        self.refuse_when_stopping()
        params = self._params(method, await _body(request))
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

    def _params(self, method: Method[Any, Any], body: bytes) -> msgspec.Struct:
        try:
            params: msgspec.Struct = self._decoders[method.name].decode(body or b"{}")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CallRefused(ErrorCode.BAD_REQUEST, f"cannot read the parameters of {method.name}: {error}") from error
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
            except CallRefused as error:
                code, message = error.code, str(error)
            except web.HTTPRequestEntityTooLarge:
                code, message = ErrorCode.TOO_LARGE, f"the parameters are larger than {_MAX_BODY_BYTES} bytes"
            except web.HTTPException:
                code, message = ErrorCode.UNKNOWN_METHOD, self._program.usage
            except Exception as error:  # noqa: BLE001 - the last line: a defect becomes a coded answer and a log entry
                code, message = self._told(request, error)
            else:
                self.answered[self._called(request), "ok"] += 1
                return response
            self.answered[self._called(request), code.value] += 1
            return _refuse(code, message, correlation_id)

    def _told(self, request: web.Request, error: Exception) -> tuple[ErrorCode, str]:
        """What the caller hears of an error of the program's own, or of a defect."""
        if (code := self._code_of(error)) is not None:
            return code, str(error)
        self._log.error("rpc.internal_error", path=request.path[:80], exc_info=error)
        return ErrorCode.INTERNAL, "internal error; the journal has the details"

    def _called(self, request: web.Request) -> str:
        """The method that a request calls, or the name of its route."""
        named = request.match_info.route.name or request.match_info.get("method", "")
        return named if request.match_info.route.name or named in self._methods else "other"


async def _body(request: web.Request) -> bytes:
    """Raises CallRefused for a caller that has gone, as one does that waited in the socket longer than it had time."""
    try:
        return await request.read()
    except OSError as error:
        raise CallRefused(ErrorCode.BAD_REQUEST, "the connection ended before the parameters had come") from error


def _refuse(code: ErrorCode, message: str, correlation_id: str) -> web.Response:
    body = ErrorBody(code=code, message=message, correlation_id=correlation_id)
    return web.Response(status=HTTP_STATUS[code], body=_encoder.encode(body), content_type="application/json")
