"""Calls while the daemon restarts: its socket stays open, so they wait; none that changes something is made twice."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import web

from medforged.client import DaemonClient, DaemonError
from medforged.contract.daemon import GetStatus
from medforged.contract.errors import ErrorCode
from medforged.contract.methods import METHODS, WATCH_PATH, daemon_status, sessions_create, sessions_stop
from medforged.contract.sessions import CreateSession, SessionRef, SessionStatus
from tests.fakes.daemon import FakeDaemon, make_session
from tests.fakes.waiting import until

pytestmark = pytest.mark.integration

FOR_EVER = 3600.0


class Restarting(FakeDaemon):
    """A daemon whose listening socket somebody else holds: while it is away, connections wait."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        super().__init__(path)
        self.listener = listener
        self._server: web.AppRunner | None = None

    async def come_back(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/{method}", self._serve)
        app.router.add_get(WATCH_PATH, self._watch)
        self._server = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._server.setup()
        await web.SockSite(self._server, self.listener.dup()).start()

    async def go_away(self) -> None:
        await self.lose_streams()
        if self._server is not None:
            await self._server.cleanup()
            self._server = None

    async def stop_accepting(self) -> None:
        """Connections that there are go on."""
        assert self._server is not None
        for site in list(self._server.sites):
            await site.stop()

    def somebody_waits(self) -> bool:
        """Whether a connection has not been accepted yet."""
        return bool(select.select([self.listener], [], [], 0)[0])


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    # Not below pytest's own directory: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mf-client-") as folder, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{folder}/medforged.sock")
        made.listen()
        made.setblocking(False)
        yield made


@pytest.fixture
async def daemon(listener: socket.socket) -> AsyncIterator[Restarting]:
    """One that is away."""
    made = Restarting(listener, Path(listener.getsockname()))
    try:
        yield made
    finally:
        await made.go_away()


@pytest.fixture
async def client(daemon: Restarting) -> AsyncIterator[DaemonClient]:
    async with DaemonClient(daemon.socket, patience_seconds=FOR_EVER) as made:
        yield made


async def failure(coroutine: object) -> DaemonError:
    with pytest.raises(DaemonError) as caught:
        await coroutine  # type: ignore[misc]  # any awaitable
    return caught.value


@pytest.mark.parametrize("method", [daemon_status, sessions_create], ids=lambda method: method.name)
async def test_a_call_waits_for_the_daemon(daemon: Restarting, client: DaemonClient, method: object) -> None:
    params = GetStatus() if method is daemon_status else CreateSession(user_id=uuid4())
    asking = asyncio.create_task(client.call(method, params))  # type: ignore[arg-type]  # one of the two
    await until(daemon.somebody_waits)
    assert not asking.done()
    await daemon.come_back()
    assert await asking


async def test_a_connection_that_was_kept_over_a_restart_is_no_obstacle(
    daemon: Restarting, client: DaemonClient
) -> None:
    for _ in range(3):
        await daemon.come_back()
        await client.call(daemon_status, GetStatus())
        created = await client.call(sessions_create, CreateSession(user_id=uuid4(), max_concurrent_sessions=9))
        await daemon.end(created.session.id)
        await client.call(daemon_status, GetStatus())
        await daemon.go_away()
    assert len(daemon.called("sessions.create")) == 3


async def test_what_the_daemon_was_busy_with_is_asked_again_if_it_changes_nothing(
    daemon: Restarting, client: DaemonClient
) -> None:
    await daemon.come_back()
    gate = daemon.hold("daemon.status")
    asking = asyncio.create_task(client.call(daemon_status, GetStatus()))
    await until(lambda: bool(daemon.called("daemon.status")))
    await daemon.go_away()
    await until(daemon.somebody_waits)
    gate.set()
    await daemon.come_back()
    assert await asking
    assert len(daemon.called("daemon.status")) == 2


async def test_a_stop_is_asked_for_again(daemon: Restarting, client: DaemonClient) -> None:
    session = await daemon.put(make_session())
    await daemon.come_back()
    gate = daemon.hold("sessions.stop")
    asking = asyncio.create_task(client.call(sessions_stop, SessionRef(session_id=session.id)))
    await until(lambda: bool(daemon.called("sessions.stop")))
    await daemon.go_away()
    gate.set()
    await daemon.come_back()
    assert (await asking).session.status is SessionStatus.STOPPING


async def test_a_create_that_had_begun_is_not_made_again(daemon: Restarting, client: DaemonClient) -> None:
    await daemon.come_back()
    daemon.hold("sessions.create")
    asking = asyncio.create_task(client.call(sessions_create, CreateSession(user_id=uuid4())))
    await until(lambda: bool(daemon.called("sessions.create")))
    await daemon.go_away()
    told = await failure(asking)
    assert told.code is ErrorCode.UNREACHABLE
    assert "the connection was lost" in told.message
    await daemon.come_back()
    await client.call(daemon_status, GetStatus())
    assert len(daemon.called("sessions.create")) == 1


async def test_a_create_that_no_daemon_took_up_is_made_once(daemon: Restarting, client: DaemonClient) -> None:
    asking = asyncio.create_task(client.call(sessions_create, CreateSession(user_id=uuid4())))
    await until(daemon.somebody_waits)
    connection, _ = daemon.listener.accept()
    with connection:
        connection.setblocking(False)
        head = await asyncio.get_running_loop().sock_recv(connection, 65536)
    assert b"Expect: 100-continue" in head
    assert head.endswith(b"\r\n\r\n"), "the parameters were sent to a daemon that had not taken up the call"
    await daemon.come_back()
    assert (await asking).session.status is SessionStatus.RUNNING
    assert len(daemon.called("sessions.create")) == 1


async def test_a_create_that_nobody_waits_for_is_not_done_later(daemon: Restarting, listener: socket.socket) -> None:
    body = b'{"user_id":"3f11c804-0cb8-4d14-90c4-0664968d81c6"}'
    with socket.socket(socket.AF_UNIX) as sent_in_full:
        # What is sent in full is done however late: without the announcement it would be so with every call.
        sent_in_full.connect(str(daemon.socket))
        head = f"POST /v1/sessions.create HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        sent_in_full.sendall(head.encode() + body)
    user = uuid4()
    async with DaemonClient(daemon.socket, patience_seconds=0.2) as client:
        told = await failure(client.call(sessions_create, CreateSession(user_id=user)))
    assert told.code is ErrorCode.UNREACHABLE
    assert "it did not answer in time" in told.message
    await daemon.come_back()
    await until(lambda: bool(daemon.called("sessions.create")))
    async with DaemonClient(daemon.socket) as client:
        await client.call(daemon_status, GetStatus())
    assert [call.params.user_id == user for call in daemon.called("sessions.create")] == [False]


async def test_a_daemon_that_is_stopping_is_asked_again(daemon: Restarting, client: DaemonClient) -> None:
    await daemon.come_back()
    daemon.refuse("daemon.status", ErrorCode.SHUTTING_DOWN)
    asking = asyncio.create_task(client.call(daemon_status, GetStatus()))
    await until(lambda: bool(daemon.called("daemon.status")))
    await daemon.go_away()
    daemon.allow("daemon.status")
    await daemon.come_back()
    assert await asking


async def test_while_a_daemon_is_stopping_its_successor_is_asked(daemon: Restarting, client: DaemonClient) -> None:
    await daemon.come_back()
    await client.call(daemon_status, GetStatus())
    await daemon.stop_accepting()
    daemon.refuse("daemon.status", ErrorCode.SHUTTING_DOWN)
    successor = Restarting(daemon.listener, daemon.socket)
    await successor.come_back()
    try:
        assert await client.call(daemon_status, GetStatus())
    finally:
        await successor.go_away()
    assert (len(daemon.called("daemon.status")), len(successor.called("daemon.status"))) == (2, 1)


async def test_a_create_that_was_refused_is_not_made_again(daemon: Restarting, client: DaemonClient) -> None:
    await daemon.come_back()
    daemon.refuse("sessions.create", ErrorCode.SHUTTING_DOWN, "the daemon is stopping")
    told = await failure(client.call(sessions_create, CreateSession(user_id=uuid4())))
    assert (told.code, told.message) == (ErrorCode.SHUTTING_DOWN, "the daemon is stopping")
    assert len(daemon.called("sessions.create")) == 1


async def test_patience_ends(daemon: Restarting) -> None:
    async with DaemonClient(daemon.socket, patience_seconds=0.1) as client:
        assert (await failure(client.call(daemon_status, GetStatus()))).code is ErrorCode.UNREACHABLE
        await daemon.come_back()
        await client.call(daemon_status, GetStatus())
        daemon.refuse("daemon.status", ErrorCode.SHUTTING_DOWN, "the daemon is stopping")
        told = await failure(client.call(daemon_status, GetStatus()))
        assert (told.code, told.message) == (ErrorCode.SHUTTING_DOWN, "the daemon is stopping")
        daemon.allow("daemon.status")
        daemon.hold("daemon.status")
        asking = asyncio.create_task(client.call(daemon_status, GetStatus()))
        before = len(daemon.called("daemon.status"))
        await until(lambda: len(daemon.called("daemon.status")) > before)
        await daemon.go_away()
        assert (await failure(asking)).code is ErrorCode.UNREACHABLE


async def test_a_call_that_was_taken_up_may_take_longer(daemon: Restarting) -> None:
    await daemon.come_back()
    gate = daemon.hold("daemon.status")
    async with DaemonClient(daemon.socket, patience_seconds=0.1) as client:
        asking = asyncio.create_task(client.call(daemon_status, GetStatus()))
        await until(lambda: bool(daemon.called("daemon.status")))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asking), 0.3)
        assert not asking.done()
        gate.set()
        assert await asking


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_nobody_who_listens_is_told_at_once(listener: socket.socket, method: object) -> None:
    path = Path(listener.getsockname())
    listener.close()
    async with DaemonClient(path, patience_seconds=FOR_EVER) as client:
        told = await failure(client.call(method, GetStatus()))  # type: ignore[arg-type]  # is never read
    assert "nothing listens there" in told.message


async def test_no_socket_is_told_at_once(tmp_path: Path) -> None:
    async with DaemonClient(tmp_path / "none.sock", patience_seconds=FOR_EVER) as client:
        told = await failure(client.call(daemon_status, GetStatus()))
    assert "it is not running" in told.message
