"""The keeper: its socket is there whatever happens to the program behind it, and the program comes back."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
LISTENER = ROOT / "ops" / "lib" / "listener.py"
KEEPER = ROOT / "ops" / "lib" / "keeper.py"
PROGRAM = Path(__file__).with_name("program.py")


class Kept:
    """Keepers of one socket, one after the other, and what can be seen of their programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "s.sock"
        self.pid_file = folder / "program.pid"
        self.log = folder / "log"
        self.log.touch()
        self.keepers: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        argv = [*before, sys.executable, str(KEEPER), "--socket", str(self.socket), "--pid-file", str(self.pid_file)]
        with self.log.open("ab") as out:
            keeper = subprocess.Popen(
                [*argv, *options, "--", sys.executable, str(PROGRAM), str(self.folder)],
                stdout=out,
                stderr=out,
                # Not meant for a keeper's programs.
                env={**os.environ, "LISTEN_FDS": "7", "NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "1"},
            )
        self.keepers.append(keeper)
        return keeper

    def starts(self) -> list[dict[str, Any]]:
        path = self.folder / "starts"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def pid(self) -> int:
        """The program that serves, as the pid file has it."""
        return int(self.pid_file.read_text().split()[0])

    def serves(self, keeper: subprocess.Popen[bytes]) -> int:
        """Wait for the first program."""
        until(lambda: "is pid" in self.log.read_text() or keeper.poll() is not None)
        assert keeper.poll() is None, self.log.read_text()
        return self.pid()

    def ask(self, at: Path | None = None) -> int:
        """The pid of whoever answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(at or self.socket))
            return int(connection.recv(100))

    def script(self, name: str, text: str = "") -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def close(self) -> None:
        (self.folder / "lingers").unlink(missing_ok=True)
        for keeper in self.keepers:
            keeper.kill()
            keeper.wait()
        for start in self.starts():
            with contextlib.suppress(ProcessLookupError):
                os.kill(start["pid"], signal.SIGKILL)


@pytest.fixture
def kept() -> Iterator[Kept]:
    # Not below pytest's own directory: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mf-keeper-") as folder:
        made = Kept(Path(folder))
        yield made
        made.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(pid: int) -> str:
    """As proc(5) has it; X when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def is_gone(pid: int) -> bool:
    return state(pid) in "XZ"


def test_the_program_gets_the_socket_and_the_keepers_ears(kept: Kept) -> None:
    keeper = kept.start("--mode", "0600")
    pid = kept.serves(keeper)
    assert kept.ask() == pid
    (start,) = kept.starts()
    assert (start["pid"], start["LISTEN_FDS"], start["LISTEN_PID"]) == (pid, "1", str(pid))
    assert start["LISTEN_FDNAMES"] == "program"
    assert start["NOTIFY_SOCKET"] not in (None, "@nobody")
    assert start["WATCHDOG_USEC"] is None
    assert stat.S_IMODE(kept.socket.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to any group")
def test_the_sockets_group(kept: Kept) -> None:
    kept.serves(kept.start("--group", "nogroup"))
    assert kept.socket.group() == "nogroup"
    assert stat.S_IMODE(kept.socket.stat().st_mode) == 0o660


def test_it_ends_with_its_program_and_leaves_nothing(kept: Kept) -> None:
    keeper = kept.start()
    pid = kept.serves(keeper)
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(30) == 0
    assert is_gone(pid)
    assert not kept.socket.exists()
    assert not kept.pid_file.exists()


def test_a_program_that_does_not_end_is_killed(kept: Kept) -> None:
    kept.script("deaf")
    keeper = kept.start("--stop-seconds", "0.2")
    pid = kept.serves(keeper)
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(30) == 0
    assert is_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("options", [[], ["--overlap"]], ids=["", "overlap"])
def test_whoever_connects_while_there_is_no_program_is_answered(
    kept: Kept, number: signal.Signals, options: list[str]
) -> None:
    keeper = kept.start(*options)
    first = kept.serves(keeper)
    # As if it took the next one long to start.
    keeper.send_signal(signal.SIGSTOP)
    until(lambda: state(keeper.pid) == "T")
    os.kill(first, number)
    until(lambda: is_gone(first))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(kept.socket))
        assert select.select([connection], [], [], 0.1) == ([], [], [])
        keeper.send_signal(signal.SIGCONT)
        connection.settimeout(30)
        answered = int(connection.recv(100))
    assert answered != first
    # It may have answered before the keeper had noted it.
    until(lambda: kept.pid() == answered)


def test_it_waits_longer_each_time_that_a_program_ends_early(kept: Kept) -> None:
    keeper = kept.start()
    pid = kept.serves(keeper)
    dies = kept.script("dies", "3")
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(kept.starts()) > 5)
    moments = [start["at"] for start in kept.starts()]
    pauses = [after - before for before, after in itertools.pairwise(moments[1:])]
    for pause, least in zip(pauses, (0.2, 0.4, 0.8, 1.6), strict=False):
        assert pause >= least
    assert "exit code 3) after" in kept.log.read_text()
    assert keeper.poll() is None
    dies.unlink()
    # And is quick again when one has come up, and was asked to end.
    again = kept.ask()
    last = kept.log.read_text()
    os.kill(again, signal.SIGTERM)
    until(lambda: is_gone(again))
    assert kept.ask() != again
    assert "next in 0.1 s" in kept.log.read_text()[len(last) :]


def test_a_first_program_that_does_not_start_ends_the_keeper(kept: Kept) -> None:
    kept.script("dies", "78")
    assert kept.start().wait(30) == 78
    assert not kept.socket.exists()
    assert len(kept.starts()) == 1


def test_a_program_that_does_not_exist(kept: Kept) -> None:
    argv = [sys.executable, str(KEEPER), "--socket", str(kept.socket), "--pid-file", str(kept.pid_file), "/none"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 127
    assert "/none cannot be started: No such file or directory" in done.stderr


def test_a_restart_replaces_the_program_after_its_end(kept: Kept) -> None:
    keeper = kept.start()
    first = kept.serves(keeper)
    lingers = kept.script("lingers")
    keeper.send_signal(signal.SIGHUP)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(kept.socket))
        assert len(kept.starts()) == 1
        lingers.unlink()
        until(lambda: kept.pid() != first)
    assert kept.ask() == kept.pid()
    assert is_gone(first)


def test_a_restart_with_overlap_starts_the_successor_first(kept: Kept) -> None:
    keeper = kept.start("--overlap")
    first = kept.serves(keeper)
    lingers = kept.script("lingers")
    keeper.send_signal(signal.SIGHUP)
    # Both accept for a moment.
    until(lambda: kept.pid() != first and kept.ask() == kept.pid())
    assert not is_gone(first), "the old program was not given the time to end"
    assert [line.split()[0] for line in kept.pid_file.read_text().splitlines()] == [str(kept.pid()), str(first)]
    lingers.unlink()
    until(lambda: is_gone(first))
    assert kept.ask() == kept.pid()
    assert len(kept.starts()) == 2


def test_a_program_that_is_stopping_gets_its_successor_at_once(kept: Kept) -> None:
    kept.script("lingers")
    first = kept.serves(kept.start("--overlap"))
    os.kill(first, signal.SIGTERM)
    until(lambda: kept.pid() != first)
    assert kept.ask() == kept.pid()
    assert not is_gone(first)


def test_a_successor_that_does_not_start_leaves_the_old_one(kept: Kept) -> None:
    keeper = kept.start("--overlap")
    first = kept.serves(keeper)
    kept.script("dies", "78")
    keeper.send_signal(signal.SIGHUP)
    until(lambda: "goes on" in kept.log.read_text())
    assert "its successor did not start (exit code 78)" in kept.log.read_text()
    assert kept.ask() == kept.pid() == first


@pytest.mark.parametrize("options", [[], ["--overlap"]], ids=["", "overlap"])
def test_the_program_of_a_killed_keeper_serves_until_the_next_one(kept: Kept, options: list[str]) -> None:
    keeper = kept.start(*options)
    first = kept.serves(keeper)
    keeper.kill()
    keeper.wait()
    assert kept.ask() == first
    kept.start(*options)
    until(lambda: kept.pid() != first)
    until(lambda: is_gone(first))
    assert kept.ask() == kept.pid()


def test_a_socket_that_nobody_listens_on_is_replaced(kept: Kept) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(kept.socket))
    # Another process has this pid by now.
    kept.pid_file.write_text(f"{os.getpid()} 1\n")
    assert kept.serves(kept.start()) == kept.ask()


def test_a_socket_that_somebody_listens_on_is_left_alone(kept: Kept) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(kept.socket))
        other.listen()
        assert kept.start().wait(30) == 69
        assert "another process listens at" in kept.log.read_text()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(kept.socket))
        other.accept()[0].close()


def test_a_file_in_the_way_is_left_alone(kept: Kept) -> None:
    kept.socket.write_text("precious")
    assert kept.start().wait(30) == 78
    assert kept.socket.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has others' processes to protect")
def test_a_pid_file_has_no_say_about_other_users(kept: Kept) -> None:
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    kept.pid_file.write_text(f"{os.getpid()} {started}\n")
    os.chown(kept.pid_file, 65534, 65534)
    ask = "from pathlib import Path; from keeper_programs import PidFile; import sys; print(PidFile(Path(sys.argv[1])).running())"
    argv = [sys.executable, "-c", ask, str(kept.pid_file)]
    environ = {**os.environ, "PYTHONPATH": str(KEEPER.parent)}
    assert subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout == "[]\n"
    os.chown(kept.pid_file, 0, 0)
    assert subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout == f"[{os.getpid()}]\n"


def test_nobody_else_can_speak_for_the_program(kept: Kept) -> None:
    first = kept.serves(kept.start("--overlap"))
    (start,) = kept.starts()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        for _ in range(3):
            out.sendto(b"STOPPING=1", "\0" + start["NOTIFY_SOCKET"][1:])
    assert kept.ask() == first
    # Heard in order: what was said before this has been heard by now.
    os.kill(first, signal.SIGTERM)
    until(lambda: kept.pid() != first)
    assert kept.ask() == kept.pid()
    assert len(kept.starts()) == 2


def opens(path: Path, *options: str) -> tuple[str, ...]:
    """What to put before a program that is to inherit a socket of this name."""
    return (sys.executable, str(LISTENER), "--socket", str(path), "--name", "operator", *options, "--")


def test_a_socket_that_it_was_given_is_passed_on_to_every_program(kept: Kept) -> None:
    path = kept.folder / "o.sock"
    keeper = kept.start(before=opens(path, "--mode", "0600"))
    first = kept.serves(keeper)
    assert (kept.ask(), kept.ask(path)) == (first, first)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.kill(first, signal.SIGKILL)
    until(lambda: kept.pid() != first and not is_gone(kept.pid()))
    # Whoever connects meanwhile waits at the socket.
    assert kept.ask(path) == kept.ask() == kept.pid()
    starts = kept.starts()
    assert [(start["LISTEN_FDS"], start["LISTEN_FDNAMES"]) for start in starts] == [("2", "program:operator")] * 2


def test_a_socket_that_an_earlier_program_still_serves_is_replaced(kept: Kept) -> None:
    path = kept.folder / "o.sock"
    keeper = kept.start(before=opens(path))
    first = kept.serves(keeper)
    keeper.kill()
    keeper.wait()
    assert kept.ask(path) == first
    kept.log.write_text("")
    second = kept.serves(kept.start(before=opens(path)))
    until(lambda: is_gone(first))
    assert kept.ask(path) == kept.ask() == second


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to any group, and become another")
def test_a_program_of_another_user_serves_a_socket_that_it_could_not_open(kept: Kept) -> None:
    kept.folder.chmod(0o755)
    path = kept.folder / "o.sock"
    program = (
        sys.executable,
        "-c",
        "import os, socket; s = socket.socket(fileno=3); c, _ = s.accept(); c.send(b'%d' % os.getuid())",
    )
    become = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with subprocess.Popen([*opens(path, "--group", "nogroup"), *become, *program]) as running:
        until(path.exists)
        assert kept.ask(path) == 65534
        assert running.wait(30) == 0
    assert (path.owner(), path.group(), stat.S_IMODE(path.stat().st_mode)) == ("root", "nogroup", 0o660)


def test_a_socket_that_cannot_be_opened_is_told(kept: Kept) -> None:
    done = subprocess.run(
        [*opens(kept.folder / "none" / "o.sock"), "true"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith("listener: cannot listen: ")
