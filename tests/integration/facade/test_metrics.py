"""The facade's metrics as Prometheus meets them, and its access log, of real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from facade.metrics.collection import METRICS
from medforged.contract.exitcodes import ExitCode
from medforged.exposition import parsed
from tests.fakes.daemon import fake_daemon, make_session
from tests.integration.daemon.conftest import running_in
from tests.integration.facade.load import get, proxy, signed_up, until_known
from tests.integration.facade.program import Program, answers, ask, gone, post, until

pytestmark = pytest.mark.integration

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
SITE = "medforge.example.test"


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    made.write(metrics={"listen": str(tmp_path / "metrics.sock")})
    yield made
    made.close()


async def scrape(where: Path) -> str:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(where))) as http,
        http.get("http://facade/metrics") as response,
    ):
        assert response.status == 200
        return await response.text()


def samples(page: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parsed(page)
        for sample in family.samples
    }


def at(found: Samples, name: str, worker: str = "1", **labels: str) -> float:
    return found[name, frozenset({**labels, "worker": worker}.items())]


def total(found: Samples, name: str, **labels: str) -> float:
    """Of all workers."""
    return sum(value for (what, told), value in found.items() if what == name and labels.items() <= dict(told).items())


def workers_of(supervisor: int) -> list[int]:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(pid) for pid in children if not gone(int(pid))]


async def started(program: Program) -> subprocess.Popen[str]:
    running = program.start()
    await asyncio.to_thread(until, answers(program.socket, b"200"), running)
    return running


async def test_a_page_tells_of_everything(program: Program) -> None:
    async with fake_daemon(program.directory / "medforged.sock") as daemon:
        await started(program)
        user_id, token = await signed_up(program.socket)
        session = await daemon.put(make_session(user_id))
        await until_known(program.socket, session.slug, token)
        for request in (
            post("/api/v1/auth/login", b'{"email":"nobody@example.org","password":"not the right one"}'),
            get(f"/api/v1/sessions/{uuid4()}", f"Cookie: medforge_session={token}", "Connection: close"),
            get("/secret/../place", "Connection: close"),
            b"PROPFIND /coffee HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            get("/api/v1/auth/session-proxy", "Connection: close"),
        ):
            await asyncio.to_thread(ask, program.socket, request)
        page = await scrape(program.directory / "metrics.sock")
    found = samples(page)
    requests = "medforge_facade_http_requests_total"
    assert at(found, requests, method="POST", route="/api/v1/auth/login", status="401") == 1
    assert at(found, requests, method="GET", route="/api/v1/sessions/{id}", status="404") == 1
    assert at(found, requests, method="GET", route="other", status="404") == 1
    assert at(found, requests, method="other", route="other", status="404") == 1
    assert at(found, "medforge_facade_session_proxy_answers_total", status="200") >= 20
    assert at(found, "medforge_facade_session_proxy_answers_total", status="404") >= 1
    assert at(found, "medforge_facade_auth_attempts_total", attempt="login", result="refused") == 1
    assert at(found, "medforge_facade_auth_attempts_total", attempt="signup", result="ok") == 1
    assert at(found, "medforge_facade_limit_refusals_total", rule="account_failures") == 0
    assert at(found, "medforge_facade_credentials_remembered", kind="login") == 1
    assert at(found, "medforge_facade_sessions", status="running") == 1
    assert at(found, "medforge_facade_watch_live") == at(found, "medforge_facade_worker_up") == 1
    assert 0 <= at(found, "medforge_facade_watch_silence_seconds") < 60
    assert at(found, "medforge_facade_watch_revisions_behind") == 0
    assert at(found, "medforge_facade_part_answers", part="daemon") == 1
    assert {family.name for family in parsed(page)} == {metric.name.removesuffix("_total") for metric in METRICS}
    for secret in (session.slug, str(session.id), str(user_id), token, "example.org", "coffee", "secret"):
        assert secret not in page


async def test_any_worker_answers_for_all(program: Program) -> None:
    path = program.directory / "metrics.sock"
    program.write(process={"workers": 2}, metrics={"listen": str(path)})
    async with fake_daemon(program.directory / "medforged.sock"):
        running = await started(program)
        for _ in range(12):
            await asyncio.to_thread(ask, program.socket, get("/api/v1/me", "Connection: close"))
        found = samples(await scrape(path))
        me = {"method": "GET", "route": "/api/v1/me", "status": "401"}
        assert total(found, "medforge_facade_http_requests_total", **me) == 12
        assert [at(found, "medforge_facade_worker_up", worker) for worker in ("1", "2")] == [1, 1]
        # One that stands still is told to be down, and holds up nothing else.
        worker = workers_of(running.pid)[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            up: list[float] = []
            while sorted(up) != [0, 1]:
                try:
                    async with asyncio.timeout(5):
                        found = samples(await scrape(path))
                except TimeoutError:
                    continue  # the kernel gave this connection to the one that stands still
                up = [at(found, "medforge_facade_worker_up", worker) for worker in ("1", "2")]
        finally:
            os.kill(worker, signal.SIGCONT)
        assert (await asyncio.to_thread(program.end, running))[0] == 0
        assert not path.exists()


async def test_who_may_read(program: Program) -> None:
    async with fake_daemon(program.directory / "medforged.sock"):
        await started(program)
        path = program.directory / "metrics.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert (await asyncio.to_thread(ask, path)).startswith(b"HTTP/1.1 404")
        public = await asyncio.to_thread(ask, program.socket, get("/metrics", "Connection: close"))
        assert public.startswith(b"HTTP/1.1 404")


async def test_loopback(program: Program) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program.write(metrics={"listen": f"127.0.0.1:{port}"})
    async with fake_daemon(program.directory / "medforged.sock"):
        await started(program)
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as response:
            assert at(samples(await response.text()), "medforge_facade_worker_up") == 1


@pytest.mark.parametrize("listen", ["0.0.0.0:9471", "[::]:9471", "10.0.0.1:9471", "localhost:9471", "example.org:9471"])
def test_metrics_are_not_for_the_network(program: Program, listen: str) -> None:
    program.write(metrics={"listen": listen})
    code, told = program.refused()
    assert code == ExitCode.CONFIG
    assert "metrics are not for the network; write 127.0.0.1:<port>" in told


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_secret_gets_into_the_log(program: Program, log_format: str) -> None:
    """Marked secrets in every place of a request, in good and bad ones, and lines that would forge others."""
    program.write(process={"log_format": log_format})
    mark = "s3cr3t"
    credentials = json.dumps({"email": f"{mark}@example.org", "password": f"{mark}-password"}).encode()
    with running_in(program.directory) as daemon:
        running = await started(program)
        signed_up_answer = await asyncio.to_thread(ask, program.socket, post("/api/v1/auth/signup", credentials))
        token = signed_up_answer.partition(b"medforge_session=")[2].partition(b";")[0].decode()
        cookie = f"Cookie: medforge_session={token}"
        made = json.dumps({"name": f"{mark}-name", "scopes": ["account:read"]}).encode()
        created = await asyncio.to_thread(ask, program.socket, post("/api/v1/me/tokens", made, cookie))
        bearer = "mft_" + created.partition(b"mft_")[2][:43].decode()
        forged = "%0d%0a%7b%22event%22:%22f0rg3d%22%7d%1b%5b2J"
        storm = [
            post("/api/v1/auth/login", credentials),
            post("/api/v1/auth/login", credentials.replace(b"password", b"wrong")),
            post("/api/v1/auth/signup", credentials),
            post("/api/v1/auth/login", credentials[:-5]),
            post("/api/v1/sessions", b'{"tier":"%s"}' % mark.encode(), cookie),
            post("/api/v1/sessions", b"{}", cookie, "X-Request-ID: known-id"),
            get(f"/login?next=https://{mark}.example.org/{mark}"),
            get(f"/api/v1/me?token={mark}", f"Authorization: Bearer {bearer}"),
            get("/api/v1/me", f"Authorization: Bearer mft_{mark}"),
            get("/api/v1/me", f"Authorization: Basic {mark}"),
            get(f"/{mark}/{forged}", f"Referer: https://{mark}", f"User-Agent: {mark}"),
            get(f"/api/v1/sessions/{mark}{forged}", cookie),
            get("/api/v1/me", f"X-Request-ID: {mark} not an id", f"Cookie: medforge_session={mark}"),
            get("/api/v1/me", f"X-Forwarded-For: {mark}", f"Origin: https://{mark}", host=f"{mark}.example.org"),
            get("/api/v1/auth/session-proxy", f"X-Forwarded-Uri: /{mark}", host=f"s-{mark}.{SITE}"),
            f"{mark} /{mark} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
            f"GET /{mark} {mark}\r\nCookie: {mark}\r\n\r\n".encode(),
            f"GET / HTTP/1.1\r\nCookie {mark}\r\nHost: x\r\n\r\n".encode(),
            f"GET / HTTP/1.1\r\nHost: x\r\nCookie: medforge_session={mark}\x00\r\n\r\n".encode(),
            f"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: {mark}\r\n\r\n".encode(),
        ]
        for request in storm:
            last = (
                request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) if b"Connection:" not in request else request
            )
            answer = await asyncio.to_thread(ask, program.socket, last)
            assert answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")), request
            assert not answer.split()[1].startswith(b"5"), answer
        code, told = await asyncio.to_thread(program.end, running)
        assert daemon.stop() == 0
        journal = daemon.log.read_text()
    assert code == 0
    # The id that a client gave reaches the daemon's journal, and nothing else of what it sent.
    events = {line["event"]: line for line in map(json.loads, journal.splitlines())}
    assert events["session.start"]["correlation_id"] == "known-id"
    for secret in (mark, token, bearer, "example.org", "password", "f0rg3d"):
        assert secret not in journal, secret
    for secret in (mark, token, bearer, bearer.removeprefix("mft_"), "example.org", "password", "f0rg3d", "\x1b[2J"):
        assert secret not in told, secret
    assert told.count("http.request") >= 16
    if log_format == "json":
        lines = [json.loads(line) for line in told.splitlines()]
        requests = [line for line in lines if line["event"] == "http.request"]
        create = next(line for line in requests if line["correlation_id"] == "known-id")
        assert (create["method"], create["route"], create["status"]) == ("POST", "/api/v1/sessions", 201)
        assert (create["signed_in_by"], create["user_id"]) == ("cookie", events["session.start"]["user_id"])
        assert create["bytes"] > 0
        assert {line["signed_in_by"] for line in requests} == {"cookie", "api_token", None}


async def test_good_answers_that_come_all_the_time_are_quiet(program: Program) -> None:
    async with fake_daemon(program.directory / "medforged.sock") as daemon:
        running = await started(program)
        user_id, token = await signed_up(program.socket)
        session = await daemon.put(make_session(user_id))
        await until_known(program.socket, session.slug, token)
        await asyncio.to_thread(
            ask, program.socket, proxy(session.slug, token).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        )
        _, told = await asyncio.to_thread(program.end, running)
    routes = [line["route"] for line in map(json.loads, told.splitlines()) if line["event"] == "http.request"]
    assert routes == ["/api/v1/auth/signup"]
