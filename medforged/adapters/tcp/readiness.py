"""Owns the probe of an IDE's port.

An open port proves little: the kernel accepts connections for a program that listens and has not got round to
answering. So the probe sends a constant request and waits for the first bytes of an HTTP answer. Those seven bytes are
compared and nothing else that the tenant's program says is read.
"""

from __future__ import annotations

import asyncio
import os
import socket
from ipaddress import IPv4Address

from medforged.domain.errors import NotReady

__all__ = ["TcpReadiness"]

_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_ANSWER = b"HTTP/1."
# A pause of one hundredth of the time waited so far costs the user at most that much, and the host next to nothing.
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _PAUSE_SHARE = 0.01, 0.1, 0.01
# A connection that is accepted and not answered is given up after as long as all attempts took before it: an IDE that
# needs long for its first answer gets that time, and one that lost our connection while it started is asked again.
_SHORTEST_ATTEMPT_SECONDS = 1.0
_SILENCE = "nothing came back"


class TcpReadiness:
    """Waits until a program answers HTTP on a TCP port."""

    async def wait(self, address: IPv4Address, port: int, timeout_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        refusal = _SILENCE
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    waited = loop.time() - began
                    answer = await _attempt(str(address), port, max(_SHORTEST_ATTEMPT_SECONDS, waited))
                    if answer is None:
                        return
                    refusal = answer
                    pause = min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, waited * _PAUSE_SHARE))
                    await asyncio.sleep(pause)
        except TimeoutError as error:
            raise NotReady(
                f"cannot reach the IDE at {address}:{port}: no HTTP answer within {timeout_seconds:g} s ({refusal}); "
                "see the session's log"
            ) from error


async def _attempt(address: str, port: int, seconds: float) -> str | None:
    """Ask once; return None for an answer, else what happened instead."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        try:
            async with asyncio.timeout(seconds):
                await loop.sock_connect(connection, (address, port))
                await loop.sock_sendall(connection, _REQUEST)
                said = b""
                while len(said) < len(_ANSWER) and _ANSWER.startswith(said):
                    more = await loop.sock_recv(connection, len(_ANSWER) - len(said))
                    if not more:
                        return "it closed the connection without an answer"
                    said += more
        except TimeoutError:
            return _SILENCE
        except OSError as error:
            return os.strerror(error.errno).lower() if error.errno else "the connection failed"
    return None if said == _ANSWER else "it answered something that is not HTTP"
