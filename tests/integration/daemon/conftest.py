"""A real medforged process with a simulated host, and what talks to its socket."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class DaemonProcess:
    """One that runs; `log` is what it writes."""

    process: subprocess.Popen[bytes]
    directory: Path
    log: Path

    @property
    def socket(self) -> Path:
        return self.directory / "medforged.sock"

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are and read until the daemon closes."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(self.socket))
            client.sendall(request)
            answer = b""
            while part := client.recv(65536):
                answer += part
        return answer


def start_daemon(directory: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    log = (directory / "daemon.log").open("ab")
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "medforged.daemon", *arguments],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, "MEDFORGED_DAEMON__LOG_FORMAT": "json", **(env or {})},
        )
    finally:
        log.close()


def await_socket(process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the daemon ended with {process.returncode}:\n{log.read_text()}"
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                time.sleep(0.02)
                continue
            return
    raise AssertionError(f"no daemon at {path}:\n{log.read_text()}")


@contextlib.contextmanager
def running_in(directory: Path) -> Iterator[DaemonProcess]:
    process = start_daemon(directory, "--simulate", str(directory))
    running = DaemonProcess(process, directory, directory / "daemon.log")
    try:
        await_socket(process, running.socket, running.log)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    with running_in(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """For tests that ask for nothing that changes it."""
    with running_in(tmp_path_factory.mktemp("shared")) as running:
        yield running
