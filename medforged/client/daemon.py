"""Owns calling the methods of a program and reading the daemon's watch stream, over a Unix socket.

Calls wait out a restart of the daemon. Where its socket stays open meanwhile, whoever connects is heard by the next
daemon; what has to be told apart is whether a call had begun. Every call is announced first (`Expect: 100-continue`)
and its parameters follow when the daemon takes it up: what was not taken up was not done, and is not done later when
nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

import aiohttp
import msgspec

from medforged.client.errors import DaemonError
from medforged.client.repeating import may_repeat
from medforged.contract.errors import ErrorBody, ErrorCode
from medforged.contract.methods import CORRELATION_HEADER, WATCH_PATH, Method
from medforged.contract.watch import HEARTBEAT_SECONDS, WatchEvent

__all__ = ["DAEMON", "DEFAULT_SOCKET", "FACADE", "Called", "DaemonClient"]

DEFAULT_SOCKET = Path("/run/medforge/medforged.sock")

# A create answers when the IDE does; the daemon's own deadlines are shorter than this.
_CALL_TIMEOUT_SECONDS = 180.0
# How long a call waits for a daemon to take it up: longer than a restart takes, shorter than people wait.
_PATIENCE_SECONDS = 10.0
_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 0.5
_CONNECT_TIMEOUT_SECONDS = 5.0
# A line of the stream is one session's record, far below this.
_MAX_LINE_BYTES = 64 * 1024

_encoder = msgspec.json.Encoder()
_errors = msgspec.json.Decoder(ErrorBody)
_events = msgspec.json.Decoder(WatchEvent)

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Called:
    """Who is called, as messages name it, and its systemd unit."""

    name: str
    unit: str


DAEMON = Called("daemon", "medforged")
FACADE = Called("facade", "medforge-facade")


class DaemonClient:
    """A pool of connections to one daemon, or to a facade's operator socket, which speaks as the daemon does.

    Use as an async context manager or call `close`.
    """

    def __init__(
        self, socket: Path = DEFAULT_SOCKET, *, called: Called = DAEMON, patience_seconds: float = _PATIENCE_SECONDS
    ) -> None:
        self._socket = socket
        self._called = called
        self._patience = patience_seconds
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()
        self._kept = self._fresh = None

    async def call(self, method: Method[P, R], params: P, *, correlation_id: str | None = None) -> R:
        """Call a method of the table. Raises DaemonError for every way in which there is no result.

        A call that a restarting daemon refused or lost is made again if that cannot do anything twice.
        """
        loop = asyncio.get_running_loop()
        attempt = _Attempt(method.name, _encoder.encode(params), correlation_id, loop.time() + self._patience)
        fresh, pause = False, _FIRST_RETRY_SECONDS
        interruption: DaemonError | None = None
        cause: BaseException | None
        while True:
            try:
                status, body = await attempt.make(self._session(fresh=fresh))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure, cause = self._unreachable(error), error
                again = _was_lost(error) and (may_repeat(method) or not attempt.begun)
            else:
                if status == 200:
                    return self._result(method, body)
                failure, cause = self._refusal(status, body), None
                again = failure.code is ErrorCode.SHUTTING_DOWN and may_repeat(method)
            if interruption is None:
                interruption, attempt.deadline = failure, loop.time() + self._patience
            if not again or loop.time() >= attempt.deadline:
                stopping = interruption.code is ErrorCode.SHUTTING_DOWN and failure.code is ErrorCode.UNREACHABLE
                raise (interruption if stopping else failure) from cause
            # A daemon that is stopping still answers on the connections that it has; its successor gets the new ones.
            fresh = True
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_RETRY_SECONDS)

    async def watch(self, since: int | None = None, epoch: UUID | None = None) -> AsyncGenerator[WatchEvent, None]:
        """One watch stream, from a revision on where given; ends with DaemonError when it is lost or falls silent."""
        params = {} if since is None or epoch is None else {"since": str(since), "epoch": str(epoch)}
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_TIMEOUT_SECONDS, sock_read=HEARTBEAT_SECONDS * 3
        )
        try:
            async with self._session(fresh=False).get(
                f"http://medforged{WATCH_PATH}", params=params, timeout=timeout, read_bufsize=_MAX_LINE_BYTES
            ) as response:
                if response.status != 200:
                    raise self._refusal(response.status, await response.read())
                async for line in response.content:
                    yield _events.decode(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        raise DaemonError(ErrorCode.UNREACHABLE, "the daemon ended the watch stream")

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        """One that keeps connections, or one that makes a new one for each request."""
        session = self._fresh if fresh else self._kept
        if session is None:
            session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._socket), limit=0, force_close=fresh),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_SECONDS),
            )
            if fresh:
                self._fresh = session
            else:
                self._kept = session
        return session

    def _unreachable(self, error: BaseException) -> DaemonError:
        number = getattr(error, "errno", None)
        if number is None and isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
        if number in (errno.EACCES, errno.EPERM):
            remedy = "run this as root or as a member of the group that owns the socket"
            reason = "permission denied"
        elif number in (errno.ENOENT, errno.ECONNREFUSED):
            remedy = f"start it with ./ops/up or systemctl start {self._called.unit}"
            reason = "it is not running" if number == errno.ENOENT else "nothing listens there"
        elif isinstance(error, TimeoutError):
            remedy = f"see its log or journalctl -u {self._called.unit}"
            reason = "it did not answer in time"
        else:
            remedy = f"see its log or journalctl -u {self._called.unit}"
            reason = f"the connection was lost ({str(error) or type(error).__name__})"
        return DaemonError(
            ErrorCode.UNREACHABLE, f"cannot reach the {self._called.name} at {self._socket}: {reason}; {remedy}"
        )

    def _result(self, method: Method[P, R], body: bytes) -> R:
        try:
            return msgspec.json.decode(body, type=method.result)
        except msgspec.MsgspecError as error:
            raise DaemonError(
                ErrorCode.INTERNAL,
                f"cannot read the {self._called.name}'s answer to {method.name}: {error}; are both of one version?",
            ) from error

    def _refusal(self, status: int, body: bytes) -> DaemonError:
        try:
            told = _errors.decode(body)
        except msgspec.MsgspecError:
            return DaemonError(ErrorCode.INTERNAL, f"the {self._called.name} answered {status} without saying why")
        return DaemonError(told.code, told.message, told.correlation_id, told.details)


@dataclass(slots=True)
class _Attempt:
    """One way of asking the daemon. `deadline` is when it must have taken the call up, on the event loop's clock."""

    method: str
    parameters: bytes
    correlation_id: str | None
    deadline: float
    begun: bool = False
    """Whether the parameters have been sent, so that the daemon may have acted upon them."""

    async def make(self, session: aiohttp.ClientSession) -> tuple[int, bytes]:
        """Status and body of the answer. Raises what aiohttp raises, or TimeoutError."""
        self.begun = False
        headers = {"Content-Type": "application/json", "Content-Length": str(len(self.parameters))}
        if self.correlation_id:
            headers[CORRELATION_HEADER] = self.correlation_id
        async with asyncio.timeout_at(self.deadline) as limit:

            async def parameters() -> AsyncIterator[bytes]:
                # Asked for when the daemon has taken the call up.
                self.begun = True
                limit.reschedule(asyncio.get_running_loop().time() + _CALL_TIMEOUT_SECONDS)
                yield self.parameters

            async with session.post(
                f"http://medforged/v1/{self.method}", data=parameters(), headers=headers, expect100=True
            ) as response:
                return response.status, await response.read()


def _was_lost(error: BaseException) -> bool:
    """Whether there was a connection, as there is with a daemon that restarts, and not merely nobody who listens."""
    lost = aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | ConnectionError
    return isinstance(error, lost) and not isinstance(error, aiohttp.ClientConnectorError | TimeoutError)
