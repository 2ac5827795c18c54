"""What medforgectl ends with when it cannot do what it was asked to: one sentence on stderr and a documented code."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from cli.exitcodes import EXIT_CODES
from medforged.contract.errors import ErrorCode
from tests.integration.cli.program import ROOT, Medforgectl
from tests.integration.cli.scripted import WAIT_SECONDS, ScriptedDaemon

pytestmark = pytest.mark.integration

COMMANDS = [
    ["status"],
    ["gpus"],
    ["sessions", "ls"],
    ["sessions", "show", "abcd2345"],
    ["sessions", "stop", "abcd2345"],
    ["sessions", "logs", "abcd2345"],
    ["gpus", "enable", "3"],
    ["gpus", "disable", "3"],
    ["gpus", "recheck", "GPU-3"],
    ["reconcile"],
    ["cleanup"],
    ["cleanup", "--force"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_daemon(socket_path: Path, medforgectl: Medforgectl, arguments: list[str]) -> None:
    done = medforgectl(*arguments)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == (
        f"medforgectl: cannot reach the daemon at {socket_path}: it is not running; "
        "start it with ./ops/up or systemctl start medforged\n"
    )


def test_a_socket_that_nobody_listens_on(socket_path: Path, medforgectl: Medforgectl) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(socket_path))
    done = medforgectl("status")
    assert done.returncode == 69
    assert "nothing listens there" in done.stderr


def test_a_socket_that_may_not_be_opened(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.socket.parent.chmod(0o755)
    daemon.socket.chmod(0)
    if os.geteuid() == 0:  # nothing is closed to root, so somebody else has to try
        setpriv = shutil.which("setpriv")
        assert setpriv, "setpriv (util-linux) is needed to become another user"
        medforgectl.argv = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", *medforgectl.argv]
    done = medforgectl("status")
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr == (
        f"medforgectl: cannot reach the daemon at {daemon.socket}: permission denied; "
        "run this as root or as a member of the group that owns the socket\n"
    )


@pytest.mark.parametrize("code", [code for code in ErrorCode if code is not ErrorCode.UNREACHABLE])
def test_every_refusal(daemon: ScriptedDaemon, medforgectl: Medforgectl, code: ErrorCode) -> None:
    if code is ErrorCode.SHUTTING_DOWN:
        medforgectl.be_impatient()
    daemon.refuse("daemon.status", code, "cannot do it:\n the \x1b[31mreason")
    done = medforgectl("status")
    assert (done.returncode, done.stdout) == (EXIT_CODES[code], "")
    told, _, correlation_id = done.stderr.rstrip(")\n").partition(" (correlation id ")
    assert told == "medforgectl: cannot do it: the \\x1b[31mreason"
    in_the_journal = code in (ErrorCode.INTERNAL, ErrorCode.HOST_FAILED, ErrorCode.CREATE_FAILED)
    assert bool(correlation_id) is in_the_journal


@pytest.mark.parametrize("command", ["show", "stop", "logs"])
def test_a_session_that_does_not_exist(daemon: ScriptedDaemon, medforgectl: Medforgectl, command: str) -> None:
    for named in ("zzzz2222", "4b1d3c6e-8f0a-4a5e-9c53-0d5f6f0b7c11"):
        done = medforgectl("sessions", command, named)
        assert (done.returncode, done.stdout) == (66, "")
        assert done.stderr.startswith("medforgectl: cannot")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["sessions", "show", "../../etc"], "is neither a session's id nor its slug"),
        (["sessions", "ls", "--limit", "0"], "0 is not in the range"),
        (["sessions", "ls", "--status", "asleep"], "'asleep' is not one of"),
        (["sessions", "ls", "--user", "root"], "'root' is not a valid UUID"),
        (["sessions", "ls", "--all", "--status", "error"], "--all and --status exclude each other"),
        (["sessions", "logs", "-n", "10001", "abcd2345"], "10001 is not in the range"),
        (["status", "-o", "yaml"], "'yaml' is not one of"),
        (["gpus", "nonsense"], "No such command 'nonsense'"),
        (["gpus", "enable"], "Missing argument 'ID_OR_UUID'"),
        (["gpus", "enable", "3", "4"], "unexpected extra argument"),
        (["gpus", "disable", "../3"], "'../3' is neither a GPU's id nor its UUID (GPU-...)"),
        (["gpus", "recheck", "GPU-3\x1b[2J"], "is neither a GPU's id nor its UUID"),
        (["gpus", "-o", "json", "enable", "3"], "-o belongs behind the command: medforgectl gpus enable -o json"),
        (["reconcile", "abcd2345"], "unexpected extra argument"),
        (["cleanup", "tank/medforge"], "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, arguments: list[str], complaint: str
) -> None:
    done = medforgectl(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert "\x1b" not in done.stderr
    assert daemon.calls == []


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (["status"], "daemon.status"),
        (["reconcile"], "sessions.reconcile"),
        (["gpus", "recheck", "1"], "gpus.recheck"),
    ],
)
def test_interrupted_while_the_daemon_is_silent(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, arguments: list[str], method: str
) -> None:
    daemon.hold(method)
    with medforgectl.started(*arguments) as process:
        daemon.wait_until(lambda: bool(daemon.called(method)))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, out, err.strip()) == (130, "", "")


def test_a_reader_that_has_gone_away(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    for _ in range(3):
        daemon.add()
    reader, writer = os.pipe()
    os.close(reader)
    with medforgectl.started("sessions", "ls", stdout=writer) as process:
        os.close(writer)
        _, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, err) == (141, "")


@pytest.mark.parametrize("arguments", [("sessions", "ls"), ("--help",)], ids=" ".join)
def test_a_full_disk_behind_the_output(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, arguments: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("w") as full, medforgectl.started(*arguments, stdout=full.fileno()) as process:
        _, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, err) == (1, "medforgectl: cannot write the output: No space left on device\n")


def test_a_defect_has_a_code_of_its_own(medforgectl: Medforgectl) -> None:
    program = medforgectl.argv[2]
    medforgectl.argv[2] = f"import cli.connection as c; c.Daemon.run = lambda *_: 1 / 0; {program}"
    done = medforgectl("status")
    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr


def test_the_socket_of_the_environment(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    medforgectl.argv = medforgectl.argv[:3]
    medforgectl.environment["MEDFORGE_SOCKET"] = str(daemon.socket)
    assert medforgectl("status").returncode == 0
    medforgectl.environment["MEDFORGE_SOCKET"] = str(ROOT / "README.md")
    assert medforgectl("status").returncode == 69
