"""A facade of several processes: who serves, what each knows of the others, and what becomes of requests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from facade.auth.tokens import digest, new_token
from facade.bootstrap import assemble, prepare
from facade.config import Settings
from facade.store.engine import Store
from facade.store.logins import LoginRows
from facade.store.users import User, Users
from medforged.contract.exitcodes import ExitCode
from tests.fakes.clock import SetClock
from tests.fakes.daemon import FakeDaemon, fake_daemon, make_session
from tests.integration.facade.conftest import eventually
from tests.integration.facade.load import Connection, Load, get, proxy, signed_up, until_known
from tests.integration.facade.program import PASSED, Program, answers, ask, connects, gone, post, until

pytestmark = pytest.mark.integration


def workers_of(supervisor: int) -> list[int]:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(pid) for pid in children if not gone(int(pid))]


@asynccontextmanager
async def connection_to(path: Path, worker: int, others: list[int]) -> AsyncIterator[Connection]:
    """To this worker: while the others stand still, nobody else can accept."""
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        made = await Connection.to(path)
        assert await made.status(get("/nope")) == 404
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)
    try:
        yield made
    finally:
        await made.close()


def a_wrong_password() -> bytes:
    request = post("/api/v1/auth/login", b'{"email":"somebody@example.org","password":"not the right one"}')
    return request.replace(b"Connection: close\r\n", b"")


@pytest.fixture
async def daemon(program: Program) -> AsyncIterator[FakeDaemon]:
    async with fake_daemon(program.directory / "medforged.sock") as made:
        yield made


@pytest.fixture
async def pair(program: Program, daemon: FakeDaemon) -> subprocess.Popen[str]:
    """A facade with two workers, both of which serve."""
    program.write(process={"workers": 2}, limits={"failures_per_account": 3})
    running = program.start()
    await asyncio.to_thread(until, lambda: daemon.watchers == 2 and answers(program.socket, b"200")(), running)
    await asyncio.to_thread(until, lambda: len(workers_of(running.pid)) == 2, running)
    return running


async def test_each_serves_and_knows_what_the_other_does(
    program: Program, daemon: FakeDaemon, pair: subprocess.Popen[str]
) -> None:
    user_id, token = await signed_up(program.socket)
    session, other = [await daemon.put(make_session(user_id)) for _ in range(2)]
    one, two = workers_of(pair.pid)
    async with (
        connection_to(program.socket, one, [two]) as here,
        connection_to(program.socket, two, [one]) as there,
    ):
        for connection in (here, there):
            assert await connection.status(proxy(session.slug, token)) == 200
            assert await connection.status(proxy(other.slug, token)) == 200
        await daemon.end(other.id)
        async with asyncio.timeout(1):
            for connection in (here, there):
                while await connection.status(proxy(other.slug, token)) != 404:  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0.02)
        # What is counted is counted by both together.
        wrong = [await connection.status(a_wrong_password()) for connection in (here, there, here, there)]
        assert wrong == [401, 401, 401, 429]
        # Whoever signs out is signed out at once in the process that heard it, and within a second in the other.
        request = post("/api/v1/auth/logout", b"{}", f"Cookie: medforge_session={token}")
        assert await here.status(request.replace(b"Connection: close\r\n", b"")) == 200
        async with asyncio.timeout(1):
            assert await here.status(proxy(session.slug, token)) == 401
            while await there.status(proxy(session.slug, token)) != 401:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.02)
    code, told = await asyncio.to_thread(program.end, pair)
    assert code == 0
    assert not program.socket.exists()
    assert gone(one)
    assert gone(two)
    lines = [json.loads(line) for line in told.splitlines()]
    assert {line["worker"] for line in lines if line["event"] == "http.request"} == {1, 2}
    for event in ("facade.started", "facade.stopped"):
        assert sorted(line["worker"] for line in lines if line["event"] == event) == [1, 2]


async def test_a_worker_that_ends_is_replaced_and_what_was_asked_is_answered(
    program: Program, daemon: FakeDaemon, pair: subprocess.Popen[str]
) -> None:
    user_id, token = await signed_up(program.socket)
    session = await daemon.put(make_session(user_id))
    before = workers_of(pair.pid)
    await until_known(program.socket, session.slug, token)
    async with Load(program.socket).running(proxy(session.slug, token)) as load:
        for worker in before:
            await load.more(200)
            os.kill(worker, signal.SIGTERM)
            await asyncio.to_thread(until, partial(gone, worker), pair)
        await load.more(200)
    assert load.failures == []
    # One that is killed loses what it was answering; the other goes on.
    killed, other = workers_of(pair.pid)
    assert not {killed, other} & set(before)
    async with connection_to(program.socket, other, [killed]) as kept:
        os.kill(killed, signal.SIGKILL)
        for _ in range(50):
            assert await kept.status(proxy(session.slug, token)) == 200
        await asyncio.to_thread(until, lambda: len(set(workers_of(pair.pid)) - {killed}) == 2, pair)
        await eventually(lambda: daemon.watchers == 2)
        (new,) = set(workers_of(pair.pid)) - {killed, other}
        async with connection_to(program.socket, new, [other]) as connection:
            assert await connection.status(proxy(session.slug, token)) == 200
        assert await kept.status(proxy(session.slug, token)) == 200


async def test_workers_without_a_supervisor_answer_whoever_is_connected_and_end(
    program: Program, daemon: FakeDaemon, pair: subprocess.Popen[str]
) -> None:
    gate = daemon.hold("sessions.create")
    _, token = await signed_up(program.socket)
    creating = asyncio.create_task(
        asyncio.to_thread(ask, program.socket, post("/api/v1/sessions", b"{}", f"Cookie: medforge_session={token}"))
    )
    await eventually(lambda: bool(daemon.called("sessions.create")))
    workers = workers_of(pair.pid)
    pair.kill()
    await asyncio.to_thread(pair.wait)
    await eventually(lambda: not connects(program.socket))
    gate.set()
    assert (await creating).startswith(b"HTTP/1.1 201")
    await eventually(lambda: all(gone(worker) for worker in workers))


def test_a_passed_socket_is_all_workers(program: Program, tmp_path: Path) -> None:
    program.write(process={"workers": 2})
    path = tmp_path / "passed.sock"
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen(5)
        number = passed.fileno()
        argv = [sys.executable, "-W", "error", "-c", PASSED, str(number), "1"]
        running = program.start(argv=argv, pass_fds=[number])
        until(answers(path), running)
        until(lambda: len(workers_of(running.pid)) == 2, running)
        assert not program.socket.exists()
        assert program.end(running)[0] == 0
    assert path.exists()


def test_an_unusable_database_is_told_once(program: Program) -> None:
    program.write(process={"workers": 2}, database={"url": f"sqlite+aiosqlite:///{program.directory}/none/facade.db"})
    code, told = program.refused()
    assert code == ExitCode.UNAVAILABLE
    assert told.startswith("medforge-facade: cannot use the database ")
    assert len(told.splitlines()) == 1
    assert not program.socket.exists()


@pytest.mark.parametrize("chores", [True, False])
async def test_chores_are_one_workers(
    settings: Settings, clock: SetClock, chores: bool, serving: Callable[..., object]
) -> None:
    await prepare(settings)
    store = Store.of(settings.database)
    rows = LoginRows(store)
    user = User(uuid4(), "a@example.org", "-", False, 1, clock.now())
    await Users(store).add(user)
    token = new_token()
    await rows.add(digest(token), user, clock.now())
    clock.advance(days=40)
    async with assemble(settings, clock=clock, prepared=True, chores=chores):
        if chores:
            async with asyncio.timeout(10):
                while await rows.find([digest(token)]):  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0.01)
        else:
            # What runs at every start has run by the time that another start's has.
            assert (
                await rows.remove_expired(used_before=clock.now(), created_before=clock.now() - timedelta(days=30)) == 1
            )
    await store.close()
