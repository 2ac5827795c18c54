"""The daemon's metrics as Prometheus meets them: a real medforged with a simulated host."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from medforged.client import DaemonClient, DaemonError
from medforged.contract.exitcodes import ExitCode
from medforged.contract.gpus import GpuRef
from medforged.contract.methods import gpus_disable, sessions_create, sessions_get, sessions_stop
from medforged.contract.sessions import CreateSession, SessionRef
from medforged.exposition import Metric, parsed
from medforged.metrics.collection import METRICS, DaemonMetrics
from medforged.metrics.sessions import SessionTally
from tests.integration.daemon.conftest import DaemonProcess, await_socket, start_daemon
from tests.integration.daemon.test_socket import ended
from tests.integration.services.rig import open_rig

pytestmark = pytest.mark.integration

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    with exposing(tmp_path) as running:
        yield running


@contextlib.contextmanager
def exposing(directory: Path) -> Iterator[DaemonProcess]:
    env = {"MEDFORGED_METRICS__LISTEN": str(directory / "metrics.sock"), "MEDFORGED_GPUS__POLL_INTERVAL_SECONDS": "0.1"}
    process = start_daemon(directory, "--simulate", str(directory), env=env)
    running = DaemonProcess(process, directory, directory / "daemon.log")
    try:
        await_socket(process, directory / "metrics.sock", running.log)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


async def scrape(directory: Path) -> str:
    connector = aiohttp.UnixConnector(str(directory / "metrics.sock"))
    async with aiohttp.ClientSession(connector=connector) as http, http.get("http://medforged/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return await response.text()


def samples(families: list[Metric]) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def at(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


async def test_a_page_tells_of_everything(daemon: DaemonProcess) -> None:
    async with DaemonClient(daemon.socket) as client:
        user = uuid4()
        session = (await client.call(sessions_create, CreateSession(user_id=user))).session
        with pytest.raises(DaemonError, match="limit"):
            await client.call(sessions_create, CreateSession(user_id=user))
        found = samples(parsed(await scrape(daemon.directory)))
        assert at(found, "medforged_sessions", status="running") == 1
        assert sum(value for (name, _), value in found.items() if name == "medforged_gpu_held") == 1
        await client.call(sessions_stop, SessionRef(session_id=session.id))
        await ended(client, session.id)
        await client.call(gpus_disable, GpuRef(gpu_id=2))
        with pytest.raises(DaemonError):
            await client.call(sessions_get, SessionRef(session_id=uuid4()))
    daemon.raw(b"POST /v1/no.such HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    page = await scrape(daemon.directory)
    families = parsed(page)
    found = samples(families)
    assert at(found, "medforged_sessions", status="running") == 0
    assert at(found, "medforged_session_ends_total", reason="requested") == 1
    assert at(found, "medforged_session_create_seconds_count", outcome="running") == 1
    assert at(found, "medforged_session_create_seconds_bucket", outcome="running", le="180.0") == 1
    assert at(found, "medforged_session_stop_seconds_count", reason="requested") == 1
    assert at(found, "medforged_rpc_calls_total", method="sessions.create", code="ok") == 1
    assert at(found, "medforged_rpc_calls_total", method="sessions.create", code="session_limit_reached") == 1
    assert at(found, "medforged_rpc_calls_total", method="sessions.get", code="session_not_found") == 1
    assert at(found, "medforged_rpc_calls_total", method="other", code="unknown_method") == 1
    assert at(found, "medforged_isolation_holds") == at(found, "medforged_recovery_alive") == 1
    assert at(found, "medforged_recovery_passes_total", result="ok") >= 1
    assert at(found, "medforged_watch_revision") > 0
    gpus = {dict(labels)["gpu_id"]: dict(labels) for name, labels in found if name == "medforged_gpu_info"}
    assert len(gpus) == 7
    for gpu_id, info in gpus.items():
        which = {"uuid": info["uuid"], "index": info["index"]}
        assert at(found, "medforged_gpu_healthy", **which) == at(found, "medforged_gpu_present", **which) == 1
        assert at(found, "medforged_gpu_enabled", **which) == (gpu_id != "2")
        assert 0 <= at(found, "medforged_gpu_utilization_ratio", **which) <= 1
        assert at(found, "medforged_gpu_memory_total_bytes", **which) > 1024**3
    # What is exposed is what is documented, and names no person.
    assert {family.name for family in families} == {metric.name.removesuffix("_total") for metric in METRICS}
    for secret in (session.slug, str(session.id), str(user)):
        assert secret not in page


async def test_who_may_read_and_where(daemon: DaemonProcess) -> None:
    path = daemon.directory / "metrics.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession(connector=connector) as http:
        # Nothing of the daemon's own socket is here, and the other way round.
        for verb, target in (("POST", "/v1/sessions.create"), ("GET", "/v1/watch"), ("POST", "/metrics")):
            async with http.request(verb, f"http://medforged{target}") as response:
                assert response.status in (404, 405)
    answer = daemon.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404")
    assert daemon.stop() == 0
    assert not path.exists()


def test_without_the_setting_there_is_no_listener(shared_daemon: DaemonProcess) -> None:
    assert [path.name for path in shared_daemon.directory.glob("*.sock")] == ["medforged.sock"]


@pytest.mark.parametrize("listen", ["127.0.0.1:9470", "[::1]:9470", "0.0.0.0:9470", "metrics.sock", ":9470"])
def test_the_daemon_never_listens_on_tcp(tmp_path: Path, listen: str) -> None:
    process = start_daemon(tmp_path, "--simulate", str(tmp_path), env={"MEDFORGED_METRICS__LISTEN": listen})
    assert process.wait(30) == ExitCode.CONFIG
    told = (tmp_path / "daemon.log").read_text()
    assert f"metrics.listen: {listen!r} is not the path of a Unix socket, and medforged never listens on TCP" in told


def test_two_sockets_need_two_paths(tmp_path: Path) -> None:
    both = str(tmp_path / "one.sock")
    env = {"MEDFORGED_METRICS__LISTEN": both, "MEDFORGED_DAEMON__SOCKET": both}
    process = start_daemon(tmp_path, "--check", env=env)
    assert process.wait(30) == ExitCode.CONFIG
    assert "is the daemon's own socket" in (tmp_path / "daemon.log").read_text()


async def test_a_scrape_waits_for_nothing(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        tally = SessionTally(rig.clock)
        rig.feed.listen(tally.note)
        session = await rig.create()
        metrics = DaemonMetrics(rig, tally, {("sessions.create", "ok"): 1})
        reading = metrics.read()
        # It ends at its first step: whatever it would wait for, a thread, a driver or the database, would be a second.
        with pytest.raises(StopIteration) as done:
            reading.send(None)
        found = samples(done.value.value)
        assert at(found, "medforged_sessions", status="running") == 1
        held = {dict(labels)["uuid"]: value for (name, labels), value in found.items() if name == "medforged_gpu_held"}
        assert held == {gpu.uuid: gpu.id == session.gpu_id for gpu in rig.watch.known.values()}


async def test_an_end_of_the_daemon_is_no_end_of_what_it_counts_active(tmp_path: Path) -> None:
    with exposing(tmp_path) as first:
        async with DaemonClient(first.socket) as client:
            session = (await client.call(sessions_create, CreateSession(user_id=uuid4()))).session
        first.stop()
    with exposing(tmp_path) as second:
        async with DaemonClient(second.socket) as client:
            found = samples(parsed(await scrape(tmp_path)))
            assert at(found, "medforged_sessions", status="running") == 1
            assert at(found, "medforged_session_create_seconds_count", outcome="running") == 0
            await client.call(sessions_stop, SessionRef(session_id=session.id))
            await ended(client, session.id)
        found = samples(parsed(await scrape(tmp_path)))
        assert at(found, "medforged_session_ends_total", reason="requested") == 1
        assert at(found, "medforged_session_stop_seconds_count", reason="requested") == 1
        ready = [line for line in second.log.read_text().splitlines() if json.loads(line)["event"] == "daemon.ready"]
        assert len(ready) == 2
