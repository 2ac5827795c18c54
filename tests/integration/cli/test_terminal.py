"""What is different on a terminal: colours, progress, a question, and text of tenants that is shown but not obeyed."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from collections.abc import Callable

import msgspec
import pytest

from medforged.contract.gpus import GpuList
from medforged.contract.orphans import Orphan, OrphanKind
from medforged.contract.sessions import SessionStatus
from tests.fakes.daemon import make_gpu
from tests.integration.cli.program import Medforgectl
from tests.integration.cli.scripted import WAIT_SECONDS, ScriptedDaemon

pytestmark = pytest.mark.integration

ORPHAN = Orphan(kind=OrphanKind.CONTAINER, name="mf-session-zzzz2345", reason="its label names no session")
TENANTS_TEXT = "ready\r\n\x1b]0;owned\x07\x1b[2J\ttail \x9b31m\n"


class Terminal:
    """The reading end of a terminal."""

    def __init__(self) -> None:
        self._own, self.other = pty.openpty()
        self.text = ""

    def read_until(self, condition: Callable[[str], bool]) -> None:
        while not condition(self.text):
            ready, _, _ = select.select([self._own], [], [], WAIT_SECONDS)
            assert ready, f"nothing more came after {self.text!r}"
            self._read()

    def read_to_end(self) -> str:
        """Everything that was written, after the program and this side have closed the other end."""
        os.close(self.other)
        while self._read():
            pass
        os.close(self._own)
        return self.text.replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._own, text.encode())

    def _read(self) -> bool:
        try:
            got = os.read(self._own, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            return False
        self.text += got.decode()
        return bool(got)


def on_a_terminal(medforgectl: Medforgectl, *arguments: str) -> tuple[int, str]:
    terminal = Terminal()
    with medforgectl.started(*arguments, stdout=terminal.other) as process:
        process.wait(WAIT_SECONDS)
    return process.returncode, terminal.read_to_end()


def test_logs_are_shown_but_not_obeyed(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(slug="abcd2345")
    daemon.logs[session.id] = TENANTS_TEXT
    code, shown = on_a_terminal(medforgectl, "sessions", "logs", "abcd2345")
    assert code == 0
    assert shown == "ready\n\\x1b]0;owned\\x07\\x1b[2J\ttail \\x9b31m\n"


def test_logs_in_a_file_are_as_they_are(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(slug="abcd2345")
    daemon.logs[session.id] = TENANTS_TEXT
    done = subprocess.run(
        [*medforgectl.argv, "sessions", "logs", "-n", "7", "abcd2345"],
        env=medforgectl.environment,
        capture_output=True,
        check=True,
        timeout=WAIT_SECONDS,
    )
    assert done.stdout == TENANTS_TEXT.encode()
    assert [call.params.lines for call in daemon.called("sessions.logs")] == [7]


def test_no_logs_are_no_line(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(slug="abcd2345")
    daemon.logs[session.id] = ""
    done = medforgectl("sessions", "logs", "abcd2345")
    assert (done.returncode, done.stdout) == (0, "")


def test_colours_on_a_terminal_only(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.add()
    assert "\x1b[32mrunning" in on_a_terminal(medforgectl, "sessions", "ls")[1]
    assert "\x1b" not in medforgectl("sessions", "ls").stdout
    medforgectl.environment["FORCE_COLOR"] = "1"
    assert "\x1b" not in medforgectl("sessions", "ls").stdout


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_not_wanted(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, name: str, value: str
) -> None:
    daemon.add()
    medforgectl.environment[name] = value
    code, shown = on_a_terminal(medforgectl, "sessions", "ls")
    assert code == 0
    assert "running" in shown
    assert "\x1b" not in shown


def test_progress_goes_to_the_terminal_and_results_to_stdout(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(slug="abcd2345")
    terminal = Terminal()
    with medforgectl.started("sessions", "stop", "abcd2345", stderr=terminal.other) as process:
        terminal.read_until(lambda text: "waiting for abcd2345 to end" in text)
        daemon.change(msgspec.structs.replace(daemon.sessions[session.id], status=SessionStatus.STOPPED))
        out, _ = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, out) == (0, "abcd2345 stopped\n")
    assert "stopped" not in terminal.read_to_end()


@pytest.mark.parametrize(("answer", "code", "status"), [("n", 1, "running"), ("y", 0, "stopped")])
def test_stopping_every_session_is_asked_about(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, answer: str, code: int, status: str
) -> None:
    session = daemon.add()
    daemon.ends[session.id] = SessionStatus.STOPPED
    terminal = Terminal()
    with medforgectl.started("sessions", "stop", "--all", stdin=terminal.other, stderr=terminal.other) as process:
        terminal.read_until(lambda text: "Stop every active session of this host?" in text)
        terminal.type(f"{answer}\n")
        process.communicate(timeout=WAIT_SECONDS)
    terminal.read_to_end()
    assert process.returncode == code
    assert daemon.sessions[session.id].status == status


def test_yes_is_an_answer_in_advance(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add()
    daemon.ends[session.id] = SessionStatus.STOPPED
    terminal = Terminal()
    with medforgectl.started("sessions", "stop", "--all", "--yes", stdin=terminal.other) as process:
        process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0
    assert terminal.read_to_end() == ""


@pytest.mark.parametrize(
    ("arguments", "method", "waiting_for"),
    [
        (["reconcile"], "sessions.reconcile", "waiting for records and host to agree"),
        (["gpus", "recheck", "1"], "gpus.recheck", "waiting for GPU 1"),
        (["cleanup"], "orphans.list", "looking for what no record explains"),
        (["cleanup", "--force"], "orphans.remove", "removing what no record explains"),
    ],
)
def test_what_takes_long_is_told(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, arguments: list[str], method: str, waiting_for: str
) -> None:
    daemon.orphans = [ORPHAN]
    gate = daemon.hold(method)
    terminal = Terminal()
    with medforgectl.started(*arguments, stderr=terminal.other) as process:
        terminal.read_until(lambda text: waiting_for in text)
        daemon.open(gate)
        out, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0
    assert out
    assert waiting_for not in out
    assert out.splitlines()[-1] not in terminal.read_to_end()


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, [ORPHAN]), ("y", 0, [])])
@pytest.mark.parametrize("output", ["table", "json"])
def test_a_removal_is_asked_about(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, answer: str, code: int, left: list[Orphan], output: str
) -> None:
    daemon.orphans = [ORPHAN]
    terminal = Terminal()
    streams = {"stdin": terminal.other, "stderr": terminal.other}
    with medforgectl.started("cleanup", "--force", "-o", output, **streams) as process:
        terminal.read_until(lambda text: "Remove 1 orphan from this host" in text)
        terminal.type(f"{answer}\n")
        out, _ = process.communicate(timeout=WAIT_SECONDS)
    told = terminal.read_to_end()
    assert process.returncode == code
    assert daemon.orphans == left
    assert ("medforgectl: nothing was removed\n" in told) is bool(left)
    if output == "table":
        assert ORPHAN.name in out, "nobody can agree to what is not shown"
    else:
        assert out == "" if left else msgspec.json.decode(out)


def test_a_removal_of_nothing_is_not_asked_about(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    terminal = Terminal()
    with medforgectl.started("cleanup", "--force", stdin=terminal.other) as process:
        out, _ = process.communicate(timeout=WAIT_SECONDS)
    terminal.read_to_end()
    assert (process.returncode, out) == (0, "Nothing was found that no record explains.\n")


def test_yes_removes_without_a_question(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.orphans = [ORPHAN]
    terminal = Terminal()
    with medforgectl.started("cleanup", "--force", "--yes", stdin=terminal.other) as process:
        process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, terminal.read_to_end(), daemon.orphans) == (0, "", [])


def test_a_quarantined_gpu_stands_out(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.gpus = GpuList(gpus=[make_gpu(1, quarantine="process 4711 is still on it")], faults=[])
    assert "\x1b[33mquarantined" in on_a_terminal(medforgectl, "gpus")[1]


def test_a_value_that_is_wider_than_the_terminal_is_folded_and_not_cut(
    daemon: ScriptedDaemon, medforgectl: Medforgectl
) -> None:
    session = daemon.add(slug="abcd2345")
    shown = on_a_terminal(medforgectl, "sessions", "show", "abcd2345")[1]
    assert session.workspace_zfs not in shown, "the terminal is wide enough, which tells nothing"
    assert session.workspace_zfs in "".join(shown.split())
