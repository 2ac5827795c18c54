"""The fast path of session-proxy: it answers what is plain, in the bytes of the long way, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from facade.hosts import Hosts
from facade.metrics.tally import Tally
from facade.server import Runner
from facade.sessions.fastpath import FastPath, Head
from medforged.contract.sessions import Session, SessionStatus
from tests.fakes.clock import SetClock
from tests.fakes.daemon import FakeDaemon, make_session
from tests.integration.facade.conftest import SITE, Api, eventually

pytestmark = pytest.mark.integration
# Nothing here depends on what keeps the accounts.
DATABASES = ("sqlite",)

PATH = "/api/v1/auth/session-proxy"
# The time, and ids that are made up where the request could not be read.
_VARIES = re.compile(rb"Date: [^\r]*\r\n|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class LongWay(FastPath):
    """Answers nothing."""

    def answer(self, head: Head, *, last: bool) -> bytes | None:
        return None


@contextlib.asynccontextmanager
async def served(
    socket: Path, app: web.Application, fast_path: FastPath, drain_seconds: float = 1
) -> AsyncIterator[Runner]:
    runner = Runner(app, fast_path, drain_seconds=drain_seconds)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield runner
    finally:
        await runner.cleanup()


@pytest.fixture
async def alone(api: Api, tmp_path: Path) -> AsyncIterator[Path]:
    """A socket with the fast path of `api` and nothing behind it: whatever it leaves is aiohttp's 404."""
    async with served(tmp_path / "alone.sock", web.Application(), api.facade.fast_path):
        yield tmp_path / "alone.sock"


@pytest.fixture
async def long_way(api: Api, tmp_path: Path) -> AsyncIterator[Path]:
    """A socket of the same facade without its fast path."""
    facade = api.facade
    async with served(
        tmp_path / "long.sock", facade.app, LongWay(Hosts("example.test", 443), facade.logins, facade.registry, Tally())
    ):
        yield tmp_path / "long.sock"


async def running(api: Api, daemon: FakeDaemon, **changes: object) -> tuple[Session, str]:
    """A session and the token of its owner, both in memory."""
    owner = await api.person()
    session = await daemon.put(make_session(owner.user_id, **changes))
    await eventually(lambda: api.facade.registry.by_slug(session.slug) is not None)
    assert await api.facade.logins.identify([owner.token])
    return session, owner.token


def question(session: Session, token: str, *headers: str, verb: str = "GET", path: str = PATH) -> bytes:
    lines = [f"{verb} {path} HTTP/1.1", f"Host: s-{session.slug}.{SITE}", f"Cookie: medforge_session={token}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


async def ask(socket: Path, *requests: bytes) -> bytes:
    """Everything that comes back on one connection, until the other side closes it."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(b"".join(requests))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def test_a_plain_question_needs_no_application(api: Api, daemon: FakeDaemon, alone: Path) -> None:
    session, token = await running(api, daemon)
    reader, writer = await asyncio.open_unix_connection(str(alone))
    for _ in range(3):
        writer.write(question(session, token))
        head = await head_of(reader)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"X-Upstream: mf-session-{session.slug}:8080\r\n".encode() in head
        assert b"Connection" not in head
    writer.write(question(session, token, "Connection: close"))
    head = await head_of(reader)
    assert b"\r\nConnection: close\r\n" in head
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_an_admins_question_is_plain_too(api: Api, daemon: FakeDaemon, alone: Path) -> None:
    session, _ = await running(api, daemon)
    admin = await api.person(admin=True)
    assert await api.facade.logins.identify([admin.token])
    assert (await ask(alone, question(session, admin.token, "Connection: close"))).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "changes",
    [
        {"verb": "HEAD"},
        {"verb": "POST"},
        {"path": PATH + "?x"},
        {"path": PATH + "/"},
        {"path": "/api/v1/auth/session%2Dproxy"},
        {"path": "http://x" + PATH},
    ],
)
async def test_another_one_is_the_applications(
    api: Api, daemon: FakeDaemon, alone: Path, changes: dict[str, str]
) -> None:
    session, token = await running(api, daemon)
    answer = await ask(alone, question(session, token, "Connection: close", **changes))
    assert answer.startswith(b"HTTP/1.1 404")


async def test_answers_come_in_the_order_of_the_questions(api: Api, daemon: FakeDaemon, alone: Path) -> None:
    session, token = await running(api, daemon)
    other = question(session, token, path="/other")
    plain, last = question(session, token), question(session, token, "Connection: close")
    # All at once, and one by one while the answer before is being made.
    answer = await ask(alone, other, plain, other, last)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"404"] * 4
    reader, writer = await asyncio.open_unix_connection(str(alone))
    statuses = []
    for request in (plain, other, plain, plain, other, plain):
        writer.write(request)
        head = await head_of(reader)
        await reader.readexactly(int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0]))
        statuses.append(head.split()[1])
    assert statuses == [b"200", b"404", b"200", b"200", b"404", b"200"]
    for request in (other, plain, other, plain, last):
        writer.write(request)
        await asyncio.sleep(0)
    assert len(re.findall(rb"HTTP/1.1 (\d+)", await reader.read())) == 5
    writer.close()
    await writer.wait_closed()


async def test_a_body_is_the_applications(api: Api, daemon: FakeDaemon, alone: Path) -> None:
    session, token = await running(api, daemon)
    asked = question(session, token, "Content-Length: 2", "Connection: close") + b"ab"
    assert (await ask(alone, asked)).startswith(b"HTTP/1.1 404")


async def test_it_says_what_the_long_way_says(api: Api, daemon: FakeDaemon, long_way: Path, clock: SetClock) -> None:
    """The same requests to both, byte by byte: plain ones, and everything that is nearly plain."""
    session, token = await running(api, daemon)
    starting, own = await running(api, daemon, status=SessionStatus.STARTING)
    stranger, admin = await api.person(), await api.person(admin=True)
    for person in (stranger, admin):
        await api.facade.logins.identify([person.token])
    revoked = (await api.person()).token
    await api.facade.logins.revoke([revoked])
    name = f"s-{session.slug}.{SITE}"
    hosts = [
        [f"Host: {name}"],
        [f"host:{name}"],
        [f"Host: {name}:443"],
        [f"Host: {name}:8443"],
        [f"Host: {name}:"],
        [f"Host: {name.upper()}"],
        [f"Host: {name}."],
        [f"Host: s-{starting.slug}.{SITE}"],
        [f"Host: s-abcd2345.{SITE}"],
        [f"Host: {SITE}"],
        [f"Host: x-{name[2:]}"],
        [f"Host: {name}, {name}"],
        [f"Host: {name}", f"Host: {name}"],
        ["Host:"],
        [],
    ]
    right = f"medforge_session={token}"
    cookies = [
        [f"Cookie: {right}"],
        [f"Cookie: a=1; {right}; b=2"],
        [f"Cookie: a=1;{right}"],
        [f"Cookie: a=1;  {right}"],
        [f"Cookie: a=1; {right} ; b=2"],
        [f"Cookie: x{right}"],
        [f"Cookie: a={right}"],
        [f"Cookie: a=1, {right}"],
        [f"Cookie: {right}x"],
        [f"Cookie: {right[:-1]}"],
        [f"Cookie: {right}; {right}"],
        [f"Cookie: {right}; medforge_session={stranger.token}"],
        [f"Cookie: medforge_session={'j' * 43}; {right}"],
        [f"Cookie: medforge_session=; {right}"],
        [f"Cookie: {right}", "Cookie: a=1"],
        [f"Cookie: {right}", f"Cookie: medforge_session={stranger.token}"],
        [f'Cookie: medforge_session="{token}"'],
        [f"Cookie: MEDFORGE_SESSION={token}"],
        [f"Cookie: medforge_session={token[:-1]}é"],
        [f"Cookie: medforge_session={own}"],
        [f"Cookie: medforge_session={stranger.token}"],
        [f"Cookie: medforge_session={admin.token}"],
        [f"Cookie: medforge_session={revoked}"],
        ["Cookie: medforge_session=;" + "x" * 43],
        ["Cookie:"],
        [],
    ]
    extras = [
        ["X-Request-ID: given-1"],
        ["X-Request-ID: given-1", "Accept: text/html", "X-Forwarded-Uri: /x"],
        ["X-Request-ID: given-1", "X-Upstream: evil:1", "Authorization: Bearer mft_x"],
        ["X-Request-ID: given-1", "Connection: Upgrade", "Upgrade: websocket"],
        ["X-Request-ID: given-1", "Connection: Upgrade", "Upgrade: h2c"],
        ["X-Request-ID: given-1", "Expect: 100-continue"],
        ["X-Request-ID: given-1", "Content-Length: 0"],
    ]
    lines = [f"GET {PATH} HTTP/1.1", f"GET {PATH} HTTP/1.0", f"HEAD {PATH} HTTP/1.1", f"GET {PATH}? HTTP/1.1"]
    lines += [f"POST {PATH} HTTP/1.1", f"get {PATH} HTTP/1.1", f"GET /{PATH} HTTP/1.1", f"GET {PATH}#x HTTP/1.1"]
    alone = [(lines[0], host, cookies[0], extras[0]) for host in hosts]
    alone += [(lines[0], host, cookie, extras[0]) for host in (hosts[0], hosts[7]) for cookie in cookies]
    alone += [(lines[0], hosts[0], cookies[0], extra) for extra in extras]
    alone += [(line, hosts[0], cookies[0], extras[0]) for line in lines]
    mixed = list(itertools.product(lines, hosts, cookies, extras))
    chosen = [*alone, *random.Random(4).sample(mixed, 300)]
    good = 0
    for line, host, cookie, extra in chosen:
        asked = "\r\n".join([line, *host, *cookie, *extra, "", ""]).encode()
        asked = asked.replace(b"Connection: Upgrade", b"Connection: close, Upgrade")
        if b"Connection" not in asked:
            asked = asked.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        here, there = await ask(api.socket, asked), await ask(long_way, asked)
        assert _VARIES.sub(b"", here) == _VARIES.sub(b"", there), asked
        good += here.startswith(b"HTTP/1.1 200")
    assert 20 < good < len(chosen) / 2


async def test_an_id_of_its_own_is_a_new_uuid_each_time(api: Api, daemon: FakeDaemon, alone: Path) -> None:
    session, token = await running(api, daemon)
    told = [await ask(alone, question(session, token, "Connection: close", "X-Request-ID: a b")) for _ in range(50)]
    ids = {answer.partition(b"X-Request-ID: ")[2].partition(b"\r")[0].decode() for answer in told}
    assert len(ids) == 50
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one) for one in ids)


async def test_an_end_of_login_or_session_shows_at_once(api: Api, daemon: FakeDaemon, alone: Path) -> None:
    session, token = await running(api, daemon)
    ended, other = await running(api, daemon)
    plain = question(session, token, "Connection: close")
    assert (await ask(alone, plain)).startswith(b"HTTP/1.1 200")
    await api.post("/api/v1/auth/logout", token=token)
    assert (await ask(alone, plain)).startswith(b"HTTP/1.1 404")
    plain = question(ended, other, "Connection: close")
    assert (await ask(alone, plain)).startswith(b"HTTP/1.1 200")
    await daemon.end(ended.id)
    await eventually(lambda: api.facade.registry.by_slug(ended.slug) is None)
    assert (await ask(alone, plain)).startswith(b"HTTP/1.1 404")


async def test_use_keeps_a_login_alive_and_time_ends_it(
    api: Api, daemon: FakeDaemon, alone: Path, clock: SetClock
) -> None:
    session, token = await running(api, daemon)
    plain = question(session, token, "Connection: close")
    for _ in range(4):
        clock.advance(days=6)
        assert (await ask(alone, plain)).startswith(b"HTTP/1.1 200")
    clock.advance(days=6, seconds=1)
    assert (await ask(alone, plain)).startswith(b"HTTP/1.1 404")
    assert (await api.proxy(session.slug, token)).status == 401


async def test_the_last_answer_of_a_draining_server_says_so(api: Api, daemon: FakeDaemon, tmp_path: Path) -> None:
    session, token = await running(api, daemon)
    async with served(tmp_path / "d.sock", web.Application(), api.facade.fast_path, drain_seconds=20) as runner:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "d.sock"))
        writer.write(question(session, token))
        assert b"Connection" not in await head_of(reader)
        ending = asyncio.create_task(runner.cleanup())
        await eventually(lambda: bool(getattr(runner.server, "draining", False)))
        writer.write(question(session, token))
        assert b"\r\nConnection: close\r\n" in await head_of(reader)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await ending


async def test_who_does_not_read_is_not_answered_without_end(
    api: Api, daemon: FakeDaemon, alone: Path, tmp_path: Path
) -> None:
    session, token = await running(api, daemon)
    async with served(tmp_path / "s.sock", web.Application(), api.facade.fast_path) as runner:
        assert runner.server is not None
        _reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s.sock"))
        asked = question(session, token)
        with contextlib.suppress(TimeoutError):
            for _ in range(20_000):
                writer.write(asked)
                await asyncio.wait_for(writer.drain(), 0.5)
        (connection,) = runner.server.connections
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < 256 * 1024
        writer.transport.abort()
        await eventually(lambda: not runner.server.connections)
