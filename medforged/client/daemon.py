"""Owns calling the daemon's methods and reading one watch stream over its Unix socket."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

import aiohttp
import msgspec

from medforged.client.errors import DaemonError
from medforged.contract.errors import ErrorBody, ErrorCode
from medforged.contract.methods import CORRELATION_HEADER, WATCH_PATH, Method
from medforged.contract.watch import HEARTBEAT_SECONDS, WatchEvent

__all__ = ["DEFAULT_SOCKET", "DaemonClient"]

DEFAULT_SOCKET = Path("/run/medforge/medforged.sock")

# A create answers when the IDE does; the daemon's own deadlines are shorter than this.
_CALL_TIMEOUT_SECONDS = 180.0
_CONNECT_TIMEOUT_SECONDS = 5.0
# A line of the stream is one session's record, far below this.
_MAX_LINE_BYTES = 64 * 1024

_encoder = msgspec.json.Encoder()
_errors = msgspec.json.Decoder(ErrorBody)
_events = msgspec.json.Decoder(WatchEvent)

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


class DaemonClient:
    """A pool of connections to one daemon. Use as an async context manager or call `close`."""

    def __init__(self, socket: Path = DEFAULT_SOCKET) -> None:
        self._socket = socket
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def call(self, method: Method[P, R], params: P, *, correlation_id: str | None = None) -> R:
        """Call a method of the table. Raises DaemonError for every way in which there is no result."""
        headers = {"Content-Type": "application/json"}
        if correlation_id:
            headers[CORRELATION_HEADER] = correlation_id
        try:
            async with self._session().post(
                f"http://medforged/v1/{method.name}", data=_encoder.encode(params), headers=headers
            ) as response:
                body = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if status != 200:
            raise _refusal(status, body)
        try:
            return msgspec.json.decode(body, type=method.result)
        except msgspec.MsgspecError as error:
            raise DaemonError(
                ErrorCode.INTERNAL,
                f"cannot read the daemon's answer to {method.name}: {error}; are client and daemon of one version?",
            ) from error

    async def watch(self, since: int | None = None, epoch: UUID | None = None) -> AsyncGenerator[WatchEvent, None]:
        """One watch stream, from a revision on where given; ends with DaemonError when it is lost or falls silent."""
        params = {} if since is None or epoch is None else {"since": str(since), "epoch": str(epoch)}
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_TIMEOUT_SECONDS, sock_read=HEARTBEAT_SECONDS * 3
        )
        try:
            async with self._session().get(
                f"http://medforged{WATCH_PATH}", params=params, timeout=timeout, read_bufsize=_MAX_LINE_BYTES
            ) as response:
                if response.status != 200:
                    raise _refusal(response.status, await response.read())
                async for line in response.content:
                    yield _events.decode(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        raise DaemonError(ErrorCode.UNREACHABLE, "the daemon ended the watch stream")

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._socket), limit=0),
                timeout=aiohttp.ClientTimeout(total=_CALL_TIMEOUT_SECONDS, sock_connect=_CONNECT_TIMEOUT_SECONDS),
            )
        return self._http

    def _unreachable(self, error: BaseException) -> DaemonError:
        number = getattr(error, "errno", None)
        if number is None and isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
        if number in (errno.EACCES, errno.EPERM):
            remedy = "run this as root or as a member of the group that owns the socket"
            reason = "permission denied"
        elif number in (errno.ENOENT, errno.ECONNREFUSED):
            remedy = "start it with ./ops/up or systemctl start medforged"
            reason = "it is not running" if number == errno.ENOENT else "nothing listens there"
        elif isinstance(error, TimeoutError):
            remedy = "see its log or journalctl -u medforged"
            reason = "it did not answer in time"
        else:
            remedy = "see its log or journalctl -u medforged"
            reason = f"the connection was lost ({str(error) or type(error).__name__})"
        return DaemonError(ErrorCode.UNREACHABLE, f"cannot reach the daemon at {self._socket}: {reason}; {remedy}")


def _refusal(status: int, body: bytes) -> DaemonError:
    try:
        told = _errors.decode(body)
    except msgspec.MsgspecError:
        return DaemonError(ErrorCode.INTERNAL, f"the daemon answered {status} without saying why")
    return DaemonError(told.code, told.message, told.correlation_id, told.details)
