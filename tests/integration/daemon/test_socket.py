"""The daemon's socket as a client meets it: methods, refusals, malformed input, the watch stream, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from medforged.client import DaemonClient, DaemonError
from medforged.contract.daemon import GetStatus, Health
from medforged.contract.errors import ErrorCode
from medforged.contract.gpus import GpuRef, ListGpus
from medforged.contract.methods import (
    METHODS,
    daemon_health,
    daemon_status,
    gpus_list,
    sessions_create,
    sessions_get,
    sessions_list,
    sessions_logs,
    sessions_stop,
)
from medforged.contract.orphans import ListOrphans, RemoveOrphans
from medforged.contract.packs import ListPacks
from medforged.contract.sessions import (
    CreateSession,
    ListSessions,
    ReconcileSessions,
    SessionLogs,
    SessionRef,
    SessionStatus,
    Tier,
)
from medforged.contract.watch import Heartbeat, SessionChanged, Synced, WatchEvent
from tests.integration.daemon.conftest import DaemonProcess, await_socket, start_daemon

pytestmark = pytest.mark.integration


def post(method: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"POST /v1/{method} HTTP/1.1",
        "Host: medforged",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def parsed(answer: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def ended(client: DaemonClient, session_id: UUID) -> SessionStatus:
    """Wait for the session's terminal status by asking; the stream has a test of its own."""
    async with asyncio.timeout(20):
        while True:
            session = (await client.call(sessions_get, SessionRef(session_id=session_id))).session
            if session.status in (SessionStatus.STOPPED, SessionStatus.ERROR):
                return session.status


async def test_a_caller_that_left_before_it_was_heard_is_no_defect(daemon: DaemonProcess) -> None:
    """As after a restart that took longer than a caller's patience: what waited in the socket has ended."""
    os.kill(daemon.process.pid, signal.SIGSTOP)
    try:
        for _ in range(20):
            _, writer = await asyncio.open_unix_connection(str(daemon.socket))
            # A body that never comes, and an answer that nobody reads.
            writer.write(post("daemon.health", b"{}").removesuffix(b"{}"))
            await writer.drain()
            writer.transport.abort()
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)
    # Whoever comes after them is answered after them.
    async with DaemonClient(daemon.socket) as client:
        await client.call(daemon_health, GetStatus())
    assert "rpc.internal_error" not in daemon.log.read_text()


async def test_a_session_from_create_to_stop(daemon: DaemonProcess) -> None:
    async with DaemonClient(daemon.socket) as client:
        user = uuid4()
        created = (await client.call(sessions_create, CreateSession(user_id=user))).session
        assert (created.status, created.user_id, created.tier) == (SessionStatus.RUNNING, user, Tier.PUBLIC)
        page = await client.call(sessions_list, ListSessions(user_id=user, statuses=[SessionStatus.RUNNING]))
        assert (page.sessions, page.has_more) == ([created], False)
        gpus = (await client.call(gpus_list, ListGpus())).gpus
        assert len(gpus) == 7
        assert [gpu.id for gpu in gpus if gpu.session_id == created.id] == [created.gpu_id]
        status = await client.call(daemon_status, GetStatus())
        assert (status.gpus_total, status.gpus_free, status.sessions_by_status) == (7, 6, {"running": 1})
        stopped = await client.call(sessions_stop, SessionRef(session_id=created.id))
        assert (stopped.requested, stopped.session.status) == (True, SessionStatus.STOPPING)
        assert await ended(client, created.id) is SessionStatus.STOPPED
        again = await client.call(sessions_stop, SessionRef(session_id=created.id))
        assert (again.requested, again.session.status) == (False, SessionStatus.STOPPED)
        story = [json.loads(line) for line in daemon.log.read_text().splitlines()]
        told = {entry["event"]: entry for entry in story if entry.get("slug") == created.slug}
        assert {"session.start", "session.stop"} <= told.keys()
        for name in ("session_id", "user_id", "slug", "gpu_id", "correlation_id"):
            assert told["session.start"][name] is not None
        assert told["session.stop"]["reason"] == "requested"


async def test_refusals_have_their_codes(daemon: DaemonProcess) -> None:
    async with DaemonClient(daemon.socket) as client:

        async def code(coroutine: object) -> ErrorCode:
            with pytest.raises(DaemonError) as caught:
                await coroutine  # type: ignore[misc]  # any awaitable
            assert caught.value.message
            return caught.value.code

        user = uuid4()
        await client.call(sessions_create, CreateSession(user_id=user))
        wrong = [
            (sessions_create, CreateSession(user_id=user), ErrorCode.SESSION_LIMIT_REACHED),
            (sessions_create, CreateSession(user_id=uuid4(), tier=Tier.PRIVATE), ErrorCode.TIER_UNAVAILABLE),
            (sessions_create, CreateSession(user_id=uuid4(), pack_id=uuid4()), ErrorCode.PACK_NOT_FOUND),
            (sessions_get, SessionRef(session_id=uuid4()), ErrorCode.SESSION_NOT_FOUND),
            (sessions_stop, SessionRef(session_id=uuid4()), ErrorCode.SESSION_NOT_FOUND),
            (sessions_logs, SessionLogs(session_id=uuid4()), ErrorCode.SESSION_NOT_FOUND),
            (sessions_list, ListSessions(before_id=uuid4()), ErrorCode.BAD_REQUEST),
        ]
        for method, params, expected in wrong:
            assert await code(client.call(method, params)) is expected, method.name
        for _ in range(6):
            await client.call(sessions_create, CreateSession(user_id=uuid4()))
        assert await code(client.call(sessions_create, CreateSession(user_id=uuid4()))) is ErrorCode.NO_GPU_AVAILABLE


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "missing required field `user_id`"),
        (b"{", "truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"user_id": 1}', r"Expected `uuid`, got `int` - at `$.user_id`"),
        (b'{"user_id": "../../etc"}', "Invalid UUID"),
        (b'{"user_id": "3f11c804-0cb8-4d14-90c4-0664968d81c6", "image": "evil"}', "unknown field `image`"),
        (b'{"user_id": "3f11c804-0cb8-4d14-90c4-0664968d81c6", "tier": "root"}', "Invalid enum value 'root'"),
        (b'{"user_id": "3f11c804-0cb8-4d14-90c4-0664968d81c6", "max_concurrent_sessions": -1}', ">= 0"),
        (b'{"user_id": "\xff"}', ""),
        (b"\x00" * 100, "malformed"),
    ],
)
def test_malformed_parameters_are_refused_by_name(shared_daemon: DaemonProcess, body: bytes, told: str) -> None:
    status, answer = parsed(shared_daemon.raw(post("sessions.create", body)))
    assert (status, answer["code"]) == (400, "bad_request")
    assert told in str(answer["message"])
    assert answer["correlation_id"]
    assert "Traceback" not in shared_daemon.log.read_text()


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (post("sessions.destroy", b"{}"), 404, "unknown_method"),
        (post("../../etc/passwd", b"{}"), 404, "unknown_method"),
        (post("sessions.create", b"{" + b" " * 20_000 + b"}"), 413, "too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "unknown_method"),
        (b"PUT /v1/sessions.create HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "unknown_method"),
        (b"GET /v1/watch?since=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/watch?since=x&epoch=y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/watch?other=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "bad_request"),
    ],
)
def test_requests_that_fit_no_method_are_refused(
    shared_daemon: DaemonProcess, request_bytes: bytes, status: int, code: str
) -> None:
    answered, body = parsed(shared_daemon.raw(request_bytes))
    assert (answered, body["code"]) == (status, code)
    assert body["message"]


def test_bytes_that_are_no_http_do_not_disturb_anybody(shared_daemon: DaemonProcess) -> None:
    for junk in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\xff" * 5000 + b"\r\n\r\n"):
        shared_daemon.raw(junk)
    assert parsed(shared_daemon.raw(post("daemon.health", b"{}")))[0] == 200


def test_correlation_ids_are_taken_when_well_formed(shared_daemon: DaemonProcess) -> None:
    _, told = parsed(shared_daemon.raw(post("sessions.get", b"{}", "X-Correlation-ID: abc-123")))
    assert told["correlation_id"] == "abc-123"
    _, told = parsed(shared_daemon.raw(post("sessions.get", b"{}", "X-Correlation-ID: a b;c")))
    assert told["correlation_id"] != "a b;c"
    assert UUID(str(told["correlation_id"]))


async def test_every_method_answers_an_operator(daemon: DaemonProcess) -> None:
    async with DaemonClient(daemon.socket) as client:
        session = (await client.call(sessions_create, CreateSession(user_id=uuid4()))).session
        params = {
            "sessions.create": CreateSession(user_id=uuid4()),
            "sessions.list": ListSessions(),
            "sessions.logs": SessionLogs(session_id=session.id),
            "sessions.reconcile": ReconcileSessions(),
            "gpus.list": ListGpus(),
            **dict.fromkeys(("gpus.enable", "gpus.disable", "gpus.recheck"), GpuRef(gpu_id=1)),
            "orphans.list": ListOrphans(),
            "orphans.remove": RemoveOrphans(),
            "packs.list": ListPacks(),
            "daemon.status": GetStatus(),
            "daemon.health": GetStatus(),
        }
        for method in METHODS:
            await client.call(method, params.get(method.name, SessionRef(session_id=session.id)))
        assert (await client.call(daemon_health, GetStatus())).health is Health.OK


async def collect(client: DaemonClient, since: int | None, epoch: UUID | None) -> tuple[list[WatchEvent], Synced]:
    told: list[WatchEvent] = []
    async with asyncio.timeout(20), contextlib.aclosing(client.watch(since, epoch)) as events:
        async for event in events:
            if isinstance(event, Synced):
                return told, event
            told.append(event)
    raise AssertionError("the stream ended before it was in step")


async def test_the_watch_stream_lists_then_follows_and_resumes(daemon: DaemonProcess) -> None:
    async with DaemonClient(daemon.socket) as client:
        first = (await client.call(sessions_create, CreateSession(user_id=uuid4()))).session
        listed, synced = await collect(client, None, None)
        assert listed == [SessionChanged(session=first)]
        assert synced.relist
        second = (await client.call(sessions_create, CreateSession(user_id=uuid4()))).session
        await client.call(sessions_stop, SessionRef(session_id=first.id))
        assert await ended(client, first.id) is SessionStatus.STOPPED
        missed, resumed = await collect(client, synced.revision, synced.epoch)
        assert not resumed.relist
        assert [e.session.id for e in missed if isinstance(e, SessionChanged)] == [second.id, first.id]
        assert missed[-1].session.status is SessionStatus.STOPPED  # type: ignore[union-attr]  # told just above
        assert (await collect(client, resumed.revision, uuid4()))[1].relist, "another database's revision was believed"
        assert (await collect(client, resumed.revision + 1000, synced.epoch))[1].relist
        async with asyncio.timeout(10), contextlib.aclosing(client.watch()) as events:
            while not isinstance(event := await anext(events), Heartbeat):
                pass
        assert event.recovery_alive


async def test_sessions_and_revisions_survive_a_kill(daemon: DaemonProcess) -> None:
    async with DaemonClient(daemon.socket) as client:
        await client.call(sessions_create, CreateSession(user_id=uuid4()))
        _, before = await collect(client, None, None)
    daemon.stop(signal.SIGKILL)
    assert daemon.socket.exists(), "the stale socket is what a killed daemon leaves"
    process = start_daemon(daemon.directory, "--simulate", str(daemon.directory))
    try:
        await asyncio.to_thread(await_socket, process, daemon.socket, daemon.log)
        async with DaemonClient(daemon.socket) as client:
            _, after = await collect(client, before.revision, before.epoch)
        assert after.epoch == before.epoch
        assert not after.relist
    finally:
        process.terminate()
        process.wait(20)


def test_sigterm_ends_cleanly_and_leaves_no_socket(daemon: DaemonProcess) -> None:
    assert daemon.stop() == 0
    assert not daemon.socket.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_stranger_is_refused_whatever_the_files_mode() -> None:
    # A directory that strangers can pass, and a socket that they can open, both on purpose: the kernel's word decides.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o711)
        process = start_daemon(directory, "--simulate", name)
        daemon = DaemonProcess(process, directory, directory / "daemon.log")
        try:
            await_socket(process, daemon.socket, daemon.log)
            daemon.socket.chmod(0o666)
            refuses_a_stranger(daemon)
        finally:
            process.kill()
            process.wait(10)


def refuses_a_stranger(daemon: DaemonProcess) -> None:
    program = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'POST /v1/daemon.health HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: 2\\r\\n\\r\\n{}');"
        "print(s.recv(4096).decode())"
    )
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", program]
    said = subprocess.run([*stranger, str(daemon.socket)], capture_output=True, text=True, check=True).stdout
    assert " 403 " in said
    assert "access_denied" in said
    denied = [json.loads(line) for line in daemon.log.read_text().splitlines() if "rpc.denied" in line]
    assert denied[0]["peer_uid"] == 65534


def test_a_second_daemon_does_not_disturb_the_first(daemon: DaemonProcess) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "medforged.daemon", "--simulate", str(daemon.directory)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert second.returncode == 69
    assert "another medforged answers there" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    assert parsed(daemon.raw(post("daemon.health", b"{}")))[0] == 200
