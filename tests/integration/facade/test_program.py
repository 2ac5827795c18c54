"""The program itself: how it starts, what it says when it cannot, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medforged.contract.exitcodes import ExitCode
from tests.fakes.daemon import fake_daemon

pytestmark = pytest.mark.integration

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


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    made.write()
    yield made
    made.close()


def ask(path: Path, request: bytes = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def until(condition: Callable[[], bool], program: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
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


def test_it_serves_and_ends(program: Program) -> None:
    running = program.start()
    until(answers(program.socket), running)
    assert stat.S_IMODE(program.socket.stat().st_mode) == 0o660
    for path in program.directory.glob("facade.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    code, told = program.end(running)
    assert (code, '"facade.stopped"' in told) == (0, True), told
    assert not program.socket.exists()


def test_an_interrupt_ends_it_too(program: Program) -> None:
    running = program.start()
    until(answers(program.socket), running)
    assert program.end(running, signal.SIGINT)[0] == 0


async def test_requests_in_progress_end_before_it_does(program: Program) -> None:
    async with fake_daemon(program.directory / "medforged.sock") as daemon:
        gate = daemon.hold("sessions.create")
        running = program.start()
        await asyncio.to_thread(until, answers(program.socket, b"200"), running)
        credentials = b'{"email":"a@example.org","password":"correct horse"}'
        signed_up = await asyncio.to_thread(ask, program.socket, post("/api/v1/auth/signup", credentials))
        token = signed_up.partition(b"medforge_session=")[2].partition(b";")[0].decode()
        creating = asyncio.create_task(
            asyncio.to_thread(ask, program.socket, post("/api/v1/sessions", b"{}", f"Cookie: medforge_session={token}"))
        )
        while not daemon.called("sessions.create"):  # noqa: ASYNC110  # the daemon tells nobody
            await asyncio.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        await asyncio.to_thread(until, lambda: not _connects(program.socket), running)
        gate.set()
        assert (await creating).startswith(b"HTTP/1.1 201")
        assert await asyncio.to_thread(running.wait, 20) == 0


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


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def test_a_dead_process_socket_is_replaced_and_a_living_ones_is_not(program: Program) -> None:
    first = program.start()
    until(answers(program.socket), first)
    code, told = program.refused()
    assert code == ExitCode.UNAVAILABLE
    assert told == (
        f"medforge-facade: cannot listen on {program.socket}: another process listens there; "
        "stop it or correct listen.socket\n"
    )
    assert answers(program.socket)()
    first.kill()
    first.wait()
    assert program.socket.exists()
    second = program.start()
    until(answers(program.socket), second)


def test_a_file_in_the_way_is_left_alone(program: Program) -> None:
    program.socket.write_text("precious")
    code, told = program.refused()
    assert code == ExitCode.CONFIG
    assert "a file that is not a socket is there" in told
    assert program.socket.read_text() == "precious"


def test_a_taken_port(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        program.write(listen={"tcp": address})
        code, told = program.refused()
    assert code == ExitCode.UNAVAILABLE
    assert told == (
        f"medforge-facade: cannot listen on {address}: Address already in use; stop what listens there or set listen.tcp\n"
    )


def test_no_folder_for_the_socket(program: Program) -> None:
    program.write(listen={"socket": str(program.directory / "none" / "facade.sock")})
    code, told = program.refused()
    assert code == ExitCode.UNAVAILABLE
    assert "its folder must exist" in told
    assert len(told.splitlines()) == 1


def test_an_unknown_group(program: Program) -> None:
    program.write(listen={"socket_group": "no-such-group"})
    code, told = program.refused()
    assert code == ExitCode.CONFIG
    assert "there is no group 'no-such-group'" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to any group")
def test_the_sockets_group_and_mode(program: Program) -> None:
    group = grp.getgrnam("nogroup")
    program.write(listen={"socket_group": group.gr_name, "socket_mode": "0666"})
    running = program.start()
    until(answers(program.socket), running)
    found = program.socket.stat()
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (group.gr_gid, 0o666)


def test_an_unusable_database(program: Program) -> None:
    program.write(database={"url": f"sqlite+aiosqlite:///{program.directory}/none/facade.db"})
    code, told = program.refused()
    assert code == ExitCode.UNAVAILABLE
    assert told.startswith("medforge-facade: cannot use the database ")
    assert len(told.splitlines()) == 1
    assert not program.socket.exists()


def test_an_unknown_key(program: Program) -> None:
    program.write(site={"domian": "x"})
    code, told = program.refused()
    assert code == ExitCode.CONFIG
    assert told.startswith(f"medforge-facade: {program.config}:4: unknown key site.domian")


def test_an_unknown_option(program: Program) -> None:
    assert program.refused("--confg", "x")[0] == ExitCode.USAGE


def test_check_and_version(program: Program) -> None:
    assert program.refused("--config", str(program.config), "--check") == (0, "the configuration is valid\n")
    assert program.refused("--version")[1].startswith("medforge-facade, version ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused as root")
def test_root_is_refused(program: Program) -> None:
    program.write(process={"allow_privileged": False})
    code, told = program.refused()
    assert code == ExitCode.NO_PERMISSION
    assert told.startswith("medforge-facade: cannot start as root: ")
    assert not program.socket.exists()


def test_a_socket_that_systemd_passes(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "passed.sock"
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen(5)
        number = passed.fileno()
        argv = [sys.executable, "-W", "error", "-c", PASSED, str(number), "1"]
        running = program.start(argv=argv, pass_fds=[number])
        until(answers(path), running)
        assert not program.socket.exists()
        assert program.end(running)[0] == 0
    assert path.exists()


def test_more_sockets_than_one_are_a_mistake(program: Program) -> None:
    with socket.socket(socket.AF_UNIX) as passed:
        number = passed.fileno()
        argv = [sys.executable, "-c", PASSED, str(number), "2"]
        code, told = program.refused(argv=argv, pass_fds=[number])
    assert code == ExitCode.CONFIG
    assert "systemd passes 2 sockets" in told


def test_systemd_is_told(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(20)
        environ = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"}
        running = program.start(env=environ)
        told = {notify.recv(100)}
        while told != {b"READY=1", b"WATCHDOG=1"}:
            told.add(notify.recv(100))
        running.send_signal(signal.SIGTERM)
        while (last := notify.recv(100)) != b"STOPPING=1":
            assert last == b"WATCHDOG=1"
        assert running.wait(timeout=20) == 0


def test_the_trial_profile_serves_pages_and_cookies_without_tls(program: Program, tmp_path: Path) -> None:
    web = tmp_path / "web"
    web.mkdir()
    (web / "index.html").write_text("<p>home</p>")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {
        **os.environ,
        "MEDFORGE_FACADE_LISTEN__TCP": f"127.0.0.1:{port}",
        "MEDFORGE_FACADE_SITE__WEB_ROOT": str(web),
    }
    running = program.start("--simulate", str(tmp_path), env=environ)

    def fetch(request: str) -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(request.encode())
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        return answer.decode()

    def ready() -> bool:
        with contextlib.suppress(OSError):
            return "200 OK" in fetch(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")
        return False

    until(ready, running)
    body = '{"email":"a@example.org","password":"correct horse"}'
    answer = fetch(
        f"POST /api/v1/auth/signup HTTP/1.1\r\nHost: medforge.localhost:{port}\r\nConnection: close\r\n"
        f"Origin: http://medforge.localhost:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    assert answer.startswith("HTTP/1.1 201")
    login, device = sorted((line for line in answer.splitlines() if line.startswith("Set-Cookie")), reverse=True)
    assert "Domain=.medforge.localhost" in login
    assert "Domain" not in device
    assert "Secure" not in login + device
    code, told = program.end(running)
    assert code == 0
    assert "correct horse" not in told
