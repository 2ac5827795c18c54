"""The program itself: how it starts, what it says when it cannot, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from medforged.contract.exitcodes import ExitCode
from tests.fakes.daemon import fake_daemon
from tests.integration.facade.program import PASSED, Program, answers, ask, connects, post, until

pytestmark = pytest.mark.integration


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
        await asyncio.to_thread(until, lambda: not connects(program.socket), running)
        gate.set()
        assert (await creating).startswith(b"HTTP/1.1 201")
        assert await asyncio.to_thread(running.wait, 20) == 0


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


def test_two_operator_sockets_are_a_mistake(program: Program) -> None:
    with socket.socket(socket.AF_UNIX) as passed:
        number = passed.fileno()
        argv = [sys.executable, "-c", PASSED, str(number), "2"]
        environ = {**os.environ, "LISTEN_FDNAMES": "operator:operator"}
        code, told = program.refused(argv=argv, pass_fds=[number], env=environ)
    assert code == ExitCode.CONFIG
    assert "one more whose FileDescriptorName= is operator" in told


def test_an_operator_socket_that_is_passed_comes_beside_the_public_one(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "operators.sock"
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen()
        number = passed.fileno()
        argv = [sys.executable, "-W", "error", "-c", PASSED, str(number), "1"]
        environ = {**os.environ, "LISTEN_FDNAMES": "operator"}
        running = program.start(argv=argv, pass_fds=[number], env=environ)
        until(answers(program.socket), running)
        listing = b"POST /v1/users.list HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        answer = ask(path, listing)
        # Whoever runs the tests is the facade's own user, and no operator for that unless it is root.
        assert answer.startswith(b"HTTP/1.1 200" if os.geteuid() == 0 else b"HTTP/1.1 403")
        assert ask(program.socket, listing).startswith(b"HTTP/1.1 404")
        code, told = program.end(running)
    assert (code, '"facade.stopped"' in told) == (0, True), told
    assert path.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_it_opens_an_operator_socket_where_it_is_told_to(program: Program, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "operators.sock"
    program.write(listen={"operator_socket": str(path)}, operators={"own_user": True}, process={"workers": workers})
    running = program.start()
    until(answers(program.socket), running)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    listing = b"POST /v1/users.list HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    assert ask(path, listing).endswith(b'{"users":[],"has_more":false}')
    assert program.end(running)[0] == 0
    assert not path.exists()


def test_no_group_of_operators(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "operators.sock"
    program.write(listen={"operator_socket": str(path)}, operators={"group": "no-such-group"})
    code, told = program.refused()
    assert code == ExitCode.CONFIG
    assert told == (
        "medforge-facade: cannot listen: there is no group 'no-such-group'; create it or correct operators.group\n"
    )
    assert not program.socket.exists()


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
