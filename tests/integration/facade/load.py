"""Requests of clients that ask a facade's socket directly: kept connections, and a load that notices what is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from tests.integration.facade.program import ask, post

SITE = "medforge.example.test"
_PAUSE_SECONDS = 0.01
_LAST = b"\r\nConnection: close\r\n"


def get(path: str, *headers: str, host: str = SITE) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()


def proxy(slug: str, token: str) -> bytes:
    """What Caddy asks for a request to a session's host."""
    return get("/api/v1/auth/session-proxy", f"Cookie: medforge_session={token}", host=f"s-{slug}.{SITE}")


def for_the_last_time(request: bytes) -> bytes:
    """The same, on a connection that ends with it."""
    return request.replace(b"\r\n", _LAST, 1)


async def signed_up(path: Path) -> tuple[UUID, str]:
    """A new person, and their cookie."""
    credentials = b'{"email":"%s@example.org","password":"correct horse"}' % uuid4().hex.encode()
    answer = await asyncio.to_thread(ask, path, post("/api/v1/auth/signup", credentials))
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    return UUID(body["data"]["user_id"]), answer.partition(b"medforge_session=")[2].partition(b";")[0].decode()


@dataclass
class Connection:
    """One kept connection, which belongs to one worker."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, path: Path) -> Connection:
        return cls(*await asyncio.open_unix_connection(str(path)))

    async def ask(self, request: bytes) -> bytes:
        """The whole answer. Raises IncompleteReadError when there is none."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0])
        return head + await self.reader.readexactly(length)

    async def status(self, request: bytes) -> int:
        return int((await self.ask(request)).split()[1])

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def until_known(path: Path, slug: str, token: str) -> None:
    """Until whoever answers lets this cookie into this session, many times in a row."""
    in_a_row = 0
    while in_a_row < 20:
        answer = await asyncio.to_thread(ask, path, for_the_last_time(proxy(slug, token)))
        in_a_row = in_a_row + 1 if answer.startswith(b"HTTP/1.1 200") else 0


@dataclass
class Load:
    """Asks several hundred times a second, and leaves time to others: half with a connection for each request, as Caddy does, half with one that they keep."""

    path: Path
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    """What was refused, lost or answered otherwise than with 200."""
    _done: bool = False

    @asynccontextmanager
    async def running(self, request: bytes) -> AsyncIterator[Load]:
        """As long as the context lasts; every request that has been sent by then is waited for."""
        asking = [asyncio.create_task(self._ask(request, keep=number % 2 == 0)) for number in range(8)]
        try:
            yield self
        finally:
            self._done = True
            await asyncio.gather(*asking)

    async def more(self, number: int) -> None:
        """Wait for so many more answers, or for a failure."""
        wanted = self.answered + number
        while self.answered < wanted and not self.failures:  # noqa: ASYNC110  # a look costs less than telling each time
            await asyncio.sleep(0.005)

    async def _ask(self, request: bytes, *, keep: bool) -> None:
        request = request if keep else for_the_last_time(request)
        connection: Connection | None = None
        while not self._done:
            try:
                if connection is None:
                    connection = await Connection.to(self.path)
                answer = await connection.ask(request)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(repr(error))
                break
            if not answer.startswith(b"HTTP/1.1 200"):
                self.failures.append(repr(answer[:200]))
                break
            self.answered += 1
            await asyncio.sleep(_PAUSE_SECONDS)
            if _LAST in answer:
                await connection.close()
                connection = None
        if connection is not None:
            await connection.close()
