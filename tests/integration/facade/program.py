"""Facades as processes: started with a configuration of their own, asked over their socket, and ended."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-W", "error", "-c", "from facade.app import main; main()"]
# `sd_listen_fds` counts from 3; LISTEN_PID has to be the program's own, which only it knows beforehand.
PASSED = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
    "os.environ['LISTEN_FDS'] = sys.argv[2]; sys.argv[1:] = sys.argv[3:]; from facade.app import main; main()"
)


class Program:
    """Starts facades with one configuration, and ends them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "facade.sock"
        self.config = directory / "facade.toml"
        self.extra = ""
        self._running: list[subprocess.Popen[str]] = []

    def write(self, **sections: dict[str, Any]) -> None:
        settings: dict[str, dict[str, Any]] = {
            "site": {"domain": "example.test", "web_root": ""},
            "listen": {"socket": str(self.socket), "drain_seconds": 5.0},
            "database": {"url": f"sqlite+aiosqlite:///{self.directory}/facade.db"},
            "daemon": {"socket": str(self.directory / "medforged.sock")},
            "process": {"allow_privileged": True, "log_format": "json"},
        }
        for section, values in sections.items():
            settings.setdefault(section, {}).update(values)
        lines = []
        for section, values in settings.items():
            lines.append(f"[{section}]")
            lines += [
                f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
                for key, value in values.items()
            ]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self, *arguments: str, argv: list[str] | None = None, **options: Any) -> subprocess.Popen[str]:
        command = [*(argv or PROGRAM), *(arguments or ("--config", str(self.config)))]
        program = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
        self._running.append(program)
        return program

    def refused(self, *arguments: str, **options: Any) -> tuple[int, str]:
        """Exit code and everything that was said."""
        program = self.start(*arguments, **options)
        told, _ = program.communicate(timeout=30)
        return program.returncode, told

    def end(self, program: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str]:
        program.send_signal(number)
        told, _ = program.communicate(timeout=30)
        return program.returncode, told

    def close(self) -> None:
        for program in self._running:
            if program.poll() is None:
                program.kill()
            with contextlib.suppress(ValueError):
                program.communicate(timeout=10)


def ask(path: Path, request: bytes = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def until(condition: Callable[[], bool], program: subprocess.Popen[str], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert program.poll() is None, program.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answers(path: Path, status: bytes = b"503") -> Callable[[], bool]:
    def ready() -> bool:
        with contextlib.suppress(OSError):
            return ask(path).startswith(b"HTTP/1.1 " + status)
        return False

    return ready


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: medforge.example.test",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def gone(pid: int) -> bool:
    """Whether the process has ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "XZ"
    except OSError:
        return True
