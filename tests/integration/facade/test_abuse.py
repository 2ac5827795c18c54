"""Whoever takes the facade's time, connections or memory at its own listener: others are served all the same."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from facade.config import Settings
from facade.middleware.bodies import BYTES_PER_SECOND, body_deadline
from facade.server import Runner
from tests.fakes.daemon import FakeDaemon
from tests.integration.facade.conftest import SITE, Api, eventually
from tests.integration.facade.program import Program, answers, ask, until

pytestmark = pytest.mark.integration

IDLE_CONNECTIONS = 10_000
# What an open connection may cost; aiohttp's takes about 14 KiB.
CONNECTION_MAX_BYTES = 32 * 1024
# Caddy's question about a host that is no session's; nothing is logged about it.
QUESTION = b"GET /api/v1/auth/session-proxy HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def impatient(
    daemon: FakeDaemon,
    settings: Settings,
    serving: Callable[[Settings], contextlib.AbstractAsyncContextManager[Api]],
) -> AsyncIterator[Api]:
    """A facade that waits a tenth of a second for bodies."""
    listen = msgspec.structs.replace(settings.listen, body_seconds=0.1)
    async with serving(msgspec.structs.replace(settings, listen=listen)) as made:
        await eventually(lambda: made.facade.registry.live)
        yield made


@contextlib.asynccontextmanager
async def wire(api: Api) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def login(*lines: str) -> bytes:
    head = ["POST /api/v1/auth/login HTTP/1.1", f"Host: {SITE}", "Content-Type: application/json", *lines]
    return "\r\n".join([*head, "", ""]).encode()


@pytest.mark.parametrize("framing", ["Content-Length: 4000", "Transfer-Encoding: chunked"])
async def test_a_body_that_does_not_come_is_not_waited_for(impatient: Api, framing: str) -> None:
    async with wire(impatient) as (reader, writer):
        writer.write(login(framing) + (b"1\r\n{\r\n" if "chunked" in framing else b"{"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 408 ")
        assert "Content-Type: application/problem+json" in head
        assert (await impatient.get("/healthz")).status == 200


async def test_bodies_that_come_byte_by_byte_do_not_keep_others_waiting(impatient: Api) -> None:
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(wire(impatient)) for _ in range(200)]
        for _, writer in slow:
            writer.write(login("Content-Length: 4000"))
        for _ in range(20):
            for _, writer in slow:
                writer.write(b" ")
            assert (await impatient.get("/healthz")).status == 200
        for reader, _ in slow:
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")


async def test_what_happens_after_the_body_may_take_longer(impatient: Api, daemon: FakeDaemon) -> None:
    """A session that takes its time to start is no slow body, even if the body came in two parts."""
    owner = await impatient.person()
    ready = daemon.hold("sessions.create")
    async with wire(impatient) as (reader, writer):
        head = f"POST /api/v1/sessions HTTP/1.1\r\nHost: {SITE}\r\nCookie: medforge_session={owner.token}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n".encode())
        await asyncio.sleep(0)
        writer.write(b"{")
        await asyncio.sleep(0)
        writer.write(b"}")
        await eventually(lambda: bool(daemon.called("sessions.create")))
        # Twice as long as a body may take: another one that starts now is refused before.
        async with wire(impatient) as (other_reader, other_writer):
            other_writer.write(login("Content-Length: 4000"))
            assert (await other_reader.readline()).startswith(b"HTTP/1.1 408 ")
        ready.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")


async def test_whoever_is_answered_without_the_body_can_send_it_or_not(impatient: Api) -> None:
    async with wire(impatient) as (reader, writer):
        writer.write(f"POST /api/v1/sessions HTTP/1.1\r\nHost: {SITE}\r\nContent-Length: 2\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")


def test_large_bodies_get_more_time() -> None:
    large = 64 * BYTES_PER_SECOND
    assert body_deadline(30, 0, large) == 30
    assert body_deadline(30, 32 * BYTES_PER_SECOND, large) == 62
    assert body_deadline(30, None, large) == body_deadline(30, large * 1000, large) == 94


async def test_a_connection_that_does_not_say_what_it_wants_is_closed(
    impatient: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing at all, half a request line and half a header, sent byte by byte."""
    monkeypatch.setattr("facade.server._KEEPALIVE_SECONDS", 0.3)  # 75 s: what else is told by time alone is not
    runner = Runner(impatient.facade.app, impatient.facade.fast_path, drain_seconds=1)
    assert runner._options["keepalive_timeout"] == 0.3
    await runner.setup()
    path = tmp_path / "second.sock"
    await web.UnixSite(runner, str(path)).start()
    try:
        for sent in (b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A"):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(sent)
            while not reader.at_eof():
                with contextlib.suppress(ConnectionError):
                    writer.write(b"a" if sent else b"")
                    await writer.drain()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        assert await reader.read(1) == b""
            writer.close()
    finally:
        await runner.cleanup()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE_CONNECTIONS + 1000:
        pytest.skip(f"this user may have {hard} files open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_ten_thousand_idle_connections_keep_nobody_waiting(program: Program) -> None:
    """Some of them have asked something before. The process starts with the usual limit of 1024 files."""
    running = program.start(preexec_fn=_usual_limit)
    until(answers(program.socket), running)
    before = memory(running)
    idle: list[socket.socket] = []
    try:
        for number in range(IDLE_CONNECTIONS):
            connection = socket.socket(socket.AF_UNIX)
            idle.append(connection)
            connection.settimeout(30)
            connection.connect(str(program.socket))
            if number % 2:
                connection.sendall(QUESTION)
                assert connection.recv(4096).startswith(b"HTTP/1.1 404 ")
        assert ask(program.socket).startswith(b"HTTP/1.1 503 ")
        each = (memory(running) - before) / IDLE_CONNECTIONS
        print(f"{each / 1024:.1f} KiB for each idle connection")
        assert each < CONNECTION_MAX_BYTES
    finally:
        for connection in idle:
            connection.close()
    assert ask(program.socket).startswith(b"HTTP/1.1 503 ")
    code, told = program.end(running)
    assert code == 0, told


def _usual_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))


def memory(running: subprocess.Popen[str]) -> int:
    """Resident bytes of the process."""
    pages = Path(f"/proc/{running.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


async def test_a_header_that_is_too_large_is_refused_and_forgotten(impatient: Api) -> None:
    for size in (70_000, 1_000_000):
        async with wire(impatient) as (reader, writer):
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * size)
                await writer.drain()
            # Whoever goes on sending may see the connection end before the answer.
            with contextlib.suppress(ConnectionError):
                assert b" 400 " in await reader.readline()
    assert (await impatient.get("/healthz")).status == 200
