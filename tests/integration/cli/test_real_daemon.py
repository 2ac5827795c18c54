"""medforgectl and the real daemon, on a simulated host: both sides of the socket at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from medforged.client import DaemonClient
from medforged.contract import methods
from medforged.contract.daemon import DaemonStatus, Health
from medforged.contract.gpus import GpuList
from medforged.contract.sessions import CreateSession, Session, SessionPage, SessionStatus
from tests.integration.cli.program import ROOT, Medforgectl

pytestmark = pytest.mark.integration


@pytest.fixture
def socket_path(socket_path: Path) -> Iterator[Path]:
    """The socket of a daemon that runs."""
    with subprocess.Popen(
        [sys.executable, "-c", "from medforged.daemon import main; main()", "--simulate", str(socket_path.parent)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            said = next((line for line in process.stderr if "daemon.ready" in line), None)
            assert said, "the daemon ended before it was ready"
            yield socket_path
        finally:
            process.terminate()
            process.communicate(timeout=20)


@pytest.fixture
def medforgectl(socket_path: Path) -> Medforgectl:
    """Started for every call, from nothing."""
    return Medforgectl(socket_path)


def create(socket: Path) -> Session:
    async def work() -> Session:
        async with DaemonClient(socket) as client:
            return (await client.call(methods.sessions_create, CreateSession(user_id=uuid4()))).session

    return asyncio.run(work())


def test_a_host_from_status_to_the_last_stop(socket_path: Path, medforgectl: Medforgectl) -> None:
    status = msgspec.json.decode(medforgectl("status", "-o", "json").stdout, type=DaemonStatus)
    assert status.health is Health.OK
    assert not any(adapter.real for adapter in status.adapters)
    assert medforgectl("status").returncode == 0

    first, second = create(socket_path), create(socket_path)
    listed = msgspec.json.decode(medforgectl("sessions", "ls", "-o", "json").stdout, type=SessionPage)
    assert [session.id for session in listed.sessions] == [second.id, first.id]
    known = msgspec.json.decode(medforgectl("gpus", "-o", "json").stdout, type=GpuList)
    assert {gpu.session_id for gpu in known.gpus} == {first.id, second.id, None}
    assert first.slug in medforgectl("gpus").stdout
    assert medforgectl("sessions", "logs", first.slug).returncode == 0

    done = medforgectl("sessions", "stop", first.slug)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{first.slug} stopped\n", "")
    done = medforgectl("sessions", "stop", "--all")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{second.slug} stopped\n", "")
    ended = msgspec.json.decode(medforgectl("sessions", "ls", "--all", "-o", "json").stdout, type=SessionPage)
    assert {session.status for session in ended.sessions} == {SessionStatus.STOPPED}


def test_an_operators_decisions(socket_path: Path, medforgectl: Medforgectl) -> None:
    done = medforgectl("reconcile")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Looked at 0 sessions in ")
    done = medforgectl("cleanup", "--force")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Nothing was found that no record explains.\n", "")

    session = create(socket_path)
    number = str(session.gpu_id)
    done = medforgectl("gpus", "disable", session.gpu_uuid)
    kept = f"GPU {number} is disabled; session {session.slug} keeps it until it ends.\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, kept, "")
    assert medforgectl("sessions", "stop", session.slug).returncode == 0
    assert create(socket_path).gpu_id != session.gpu_id
    done = medforgectl("gpus", "enable", number)
    assert (done.returncode, done.stdout) == (0, f"GPU {number} is enabled and free.\n")
    done = medforgectl("gpus", "recheck", number)
    assert (done.returncode, done.stdout) == (0, f"GPU {number} is healthy and free.\n")


def test_what_does_not_exist(socket_path: Path, medforgectl: Medforgectl) -> None:
    for named in ("zzzz2222", str(uuid4())):
        done = medforgectl("sessions", "show", named)
        assert (done.returncode, done.stdout) == (66, "")
        assert named in done.stderr
    for named in ("99", "GPU-99"):
        done = medforgectl("gpus", "disable", named)
        assert (done.returncode, done.stdout) == (66, "")
        assert "99" in done.stderr
