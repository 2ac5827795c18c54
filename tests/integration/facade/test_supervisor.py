"""The supervisor: its workers come back whatever happens to them, end with it, and it speaks for all of them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.facade.program import ROOT, gone

pytestmark = pytest.mark.integration


class Supervised:
    """A supervisor with scripted workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, workers: int = 2, *, hung: float = 30, stop: float = 30, **environ: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            made = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.integration.facade.supervised",
                    *map(str, (self.folder, workers, hung, stop)),
                ],
                cwd=ROOT,
                stdout=out,
                stderr=out,
                env={**os.environ, **environ},
            )
        self._running.append(made)
        return made

    def starts(self) -> list[dict[str, Any]]:
        path = self.folder / "starts"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def serving(self) -> dict[int, int]:
        """Worker number -> the process that was started last under it."""
        return {start["worker"]: start["pid"] for start in self.starts()}

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def told(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.events() if entry["event"] == event]

    def ready(self, workers: int = 2) -> dict[int, int]:
        until(lambda: bool(self.told("facade.workers_started")))
        assert len(self.serving()) == workers
        return self.serving()

    def script(self, name: str, text: str = "") -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def close(self) -> None:
        for supervisor in self._running:
            supervisor.kill()
            supervisor.wait()
        for start in self.starts():
            with contextlib.suppress(ProcessLookupError):
                os.kill(start["pid"], signal.SIGKILL)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    made = Supervised(tmp_path)
    yield made
    made.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_ends_with_all_of_its_workers(supervised: Supervised) -> None:
    supervisor = supervised.start(3)
    serving = supervised.ready(3)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 0
    assert all(gone(pid) for pid in serving.values())
    assert not supervised.told("worker.ended")


def test_a_worker_that_is_killed_is_started_again_and_the_others_go_on(supervised: Supervised) -> None:
    supervised.start(3)
    before = supervised.ready(3)
    os.kill(before[2], signal.SIGKILL)
    until(lambda: supervised.serving()[2] != before[2])
    assert {number: pid for number, pid in supervised.serving().items() if number != 2} == {1: before[1], 3: before[3]}
    (ended,) = supervised.told("worker.ended")
    assert (ended["worker"], ended["pid"], ended["exit_code"], ended["next_in"]) == (2, before[2], 137, 0.1)


def test_a_worker_that_is_asked_to_end_is_replaced_at_once(supervised: Supervised) -> None:
    supervised.start()
    before = supervised.ready()
    os.kill(before[1], signal.SIGTERM)
    until(lambda: supervised.serving()[1] != before[1])
    until(lambda: gone(before[1]))
    assert not supervised.told("worker.ended")
    assert supervised.serving()[2] == before[2]


def test_it_waits_longer_each_time_that_a_worker_ends_early(supervised: Supervised) -> None:
    supervisor = supervised.start(1)
    before = supervised.ready(1)
    supervised.script("dies", "3")
    os.kill(before[1], signal.SIGKILL)
    until(lambda: len(supervised.starts()) > 4)
    moments = [start["at"] for start in supervised.starts()[1:]]
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    for pause, least in zip(pauses, (0.2, 0.4, 0.8), strict=False):
        assert pause >= least
    assert supervisor.poll() is None
    assert {entry["exit_code"] for entry in supervised.told("worker.ended")} == {137, 3}


def test_a_worker_that_is_silent_is_killed_and_started_again(supervised: Supervised) -> None:
    supervised.start(hung=1.0)
    before = supervised.ready()
    os.kill(before[2], signal.SIGSTOP)
    until(lambda: supervised.serving()[2] != before[2])
    (hung,) = supervised.told("worker.hung")
    assert (hung["worker"], hung["pid"]) == (2, before[2])
    assert supervised.serving()[1] == before[1]


def test_a_worker_is_not_silent_while_everything_stands_still(supervised: Supervised) -> None:
    supervisor = supervised.start(hung=1.0)
    before = supervised.ready()
    for pid in (supervisor.pid, *before.values()):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5)
    for pid in (supervisor.pid, *before.values()):
        os.kill(pid, signal.SIGCONT)
    # Its own turn of the wheel: whoever is killed by mistake is killed in these beats.
    os.kill(before[1], signal.SIGTERM)
    until(lambda: supervised.serving()[1] != before[1])
    assert not supervised.told("worker.hung")
    assert supervised.serving()[2] == before[2]


def test_a_worker_that_does_not_end_is_killed(supervised: Supervised) -> None:
    supervised.script("deaf")
    supervisor = supervised.start(stop=0.3)
    serving = supervised.ready()
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 0
    assert all(gone(pid) for pid in serving.values())
    assert {entry["worker"] for entry in supervised.told("worker.killed")} == {1, 2}


def test_workers_end_when_their_supervisor_is_killed(supervised: Supervised) -> None:
    supervisor = supervised.start(3)
    serving = supervised.ready(3)
    supervisor.kill()
    supervisor.wait()
    until(lambda: all(gone(pid) for pid in serving.values()))


@pytest.mark.parametrize("where", ["dies", "unprepared"])
def test_a_start_that_fails_is_told_by_its_exit_code(supervised: Supervised, where: str) -> None:
    supervised.script(where, "78")
    supervisor = supervised.start()
    assert supervisor.wait(30) == 78
    assert all(gone(start["pid"]) for start in supervised.starts())
    assert not supervised.told("facade.workers_started")
    assert bool(supervised.starts()) == (where == "dies")


def test_it_alone_speaks_to_systemd(supervised: Supervised) -> None:
    path = supervised.folder / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        notify.settimeout(20)
        told: list[bytes] = []

        def hear() -> bytes:
            message, ancillary, _, _ = notify.recvmsg(100, socket.CMSG_SPACE(12))
            (sender,) = [struct.unpack("3i", data)[0] for _, _, data in ancillary]
            assert sender == supervisor.pid
            told.append(message)
            return message

        supervisor = supervised.start(NOTIFY_SOCKET=str(path))
        while hear() != b"READY=1":
            pass
        before = supervised.serving()
        assert len(before) == 2
        # Neither a restart nor a replacement of a worker is one of the service.
        os.kill(before[1], signal.SIGKILL)
        os.kill(before[2], signal.SIGTERM)
        until(lambda: all(supervised.serving()[number] != before[number] for number in before))
        while hear() != b"WATCHDOG=1":
            pass
        supervisor.send_signal(signal.SIGTERM)
        while hear() != b"STOPPING=1":
            pass
        assert supervisor.wait(30) == 0
        assert told.count(b"READY=1") == told.count(b"STOPPING=1") == 1
        assert set(told) == {b"READY=1", b"STOPPING=1", b"WATCHDOG=1"}
