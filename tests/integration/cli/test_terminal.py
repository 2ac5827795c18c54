"""What is different on a terminal: colours, progress, a question, and text of tenants that is shown but not obeyed."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from collections.abc import Callable

import msgspec
import pytest

from medforged.contract.sessions import SessionStatus
from tests.integration.cli.program import Medforgectl
from tests.integration.cli.scripted import WAIT_SECONDS, ScriptedDaemon

pytestmark = pytest.mark.integration

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
