"""Events in a real journal: a systemd-journald in a mount namespace of its own, asked with the real journalctl."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medforged.journald import JournalSocket, fields_of, message_id

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "systemd" / "catalog" / "medforge.catalog"
JOURNALD = Path("/usr/lib/systemd/systemd-journald")
SECONDS = 30.0
# Its runtime folder is a file system of its own, so the host's journal, if it has one, sees nothing of it.
START = """
mount -t tmpfs none /run
mkdir -p /run/log/journal /run/systemd/journal
: >/run/apart
if [ ! -s /etc/machine-id ]; then
  echo 0123456789abcdef0123456789abcdef >/run/machine-id
  mount --bind /run/machine-id /etc/machine-id
fi
exec "$1"
"""


class Journal:
    """One that runs; `enter` is what a program is started by to be in its namespace."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.enter = ("nsenter", f"--mount=/proc/{process.pid}/ns/mnt")

    def write(self, code: str) -> str:
        """Run Python code that logs; what it writes to standard error."""
        done = subprocess.run(
            [*self.enter, sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            # Entering the namespace leaves the directory.
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def read(self, *matches: str) -> list[dict[str, object]]:
        subprocess.run([*self.enter, "journalctl", "--sync"], check=False, capture_output=True, timeout=SECONDS)
        argv = ["journalctl", "--directory=/run/log/journal", "--no-pager", "--output=json", "--all", *matches]
        done = subprocess.run([*self.enter, *argv], capture_output=True, text=True, check=False, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def found(self, *matches: str) -> list[dict[str, object]]:
        """The same, once there is something."""
        deadline = time.monotonic() + SECONDS
        while not (entries := self.read(*matches)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return entries


@pytest.fixture(scope="module")
def journal() -> Iterator[Journal]:
    if os.geteuid() != 0:
        pytest.skip("a journal of one's own needs root")
    if not JOURNALD.exists() or shutil.which("journalctl") is None:
        pytest.skip("systemd-journald is missing (apt-get install systemd)")
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "bash", "-euc", START, "bash", JOURNALD],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        made = Journal(process)
        deadline = time.monotonic() + SECONDS
        run = Path(f"/proc/{process.pid}/root/run")
        # Until it has a `/run` of its own, what is there may be the host's journal.
        while not ((run / "apart").exists() and (run / "systemd" / "journal" / "socket").exists()):
            assert process.poll() is None, "systemd-journald has ended"
            assert time.monotonic() < deadline, "systemd-journald does not listen"
            time.sleep(0.05)
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


LOGGING = "import structlog\nfrom medforged import logs\nlogs.configure('journal', program='medforge-test')\n"


def test_a_session_is_found_by_what_operators_know(journal: Journal) -> None:
    told = journal.write(
        LOGGING + "log = structlog.get_logger()\n"
        "log.info('session.start', slug='abcd2345', gpu_id=3)\n"
        "log.info('session.stop', slug='abcd2345', gpu_id=3, reason='requested', token='geheim')\n"
        "log.info('session.stop', slug='zzzz2345', gpu_id=4, reason='container_death')\n"
    )
    assert told == "", "the journal has it; standard error would say it twice"
    (stop,) = journal.found("EVENT=session.stop", "SLUG=abcd2345")
    assert stop["MEDFORGE_REASON"] == "requested"
    assert stop["GPU_ID"] == "3"
    assert stop["PRIORITY"] == "6"
    assert stop["SYSLOG_IDENTIFIER"] == "medforge-test"
    assert stop["MESSAGE_ID"] == message_id("session.stop")
    # The journal adds the command line, in which this test has said it.
    assert "geheim" not in json.dumps({name: value for name, value in stop.items() if not name.startswith("_")})
    assert [entry["EVENT"] for entry in journal.read("SLUG=abcd2345")] == ["session.start", "session.stop"]


def test_a_value_forges_nothing(journal: Journal) -> None:
    journal.write(
        LOGGING + "structlog.get_logger().warning('forged', name='x\\nPRIORITY=0\\n_UID=4711\\nEVENT=session.stop')\n"
    )
    (entry,) = journal.found("EVENT=forged")
    assert (entry["PRIORITY"], entry["_UID"]) == ("4", "0")
    assert journal.read("_UID=4711") == []


def test_a_large_entry_arrives_whole(journal: Journal) -> None:
    journal.write(LOGGING + "structlog.get_logger().error('large', text='x\\n' * 200_000)\n")
    (entry,) = journal.found("EVENT=large")
    assert entry["MEDFORGE_TEXT"] == "x\n" * 200_000


def test_libraries_and_tracebacks_are_there_too(journal: Journal) -> None:
    journal.write(
        LOGGING + "import logging\nlogging.getLogger('library').error('of a library')\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    structlog.get_logger().exception('failed.so')\n"
    )
    (entry,) = journal.found("EVENT=of a library")
    assert entry["PRIORITY"] == "3"
    (failed,) = journal.found("EVENT=failed.so")
    assert "ZeroDivisionError" in str(failed["MESSAGE"])


def test_without_a_journal_a_line_is_written(tmp_path: Path) -> None:
    code = (
        "import sys, structlog\nfrom pathlib import Path\nfrom medforged import logs\n"
        "logs.configure('journal', journal=Path(sys.argv[1]))\n"
        "structlog.get_logger().info('session.stop', slug='abcd2345')\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "nobody")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=SECONDS, cwd=ROOT)
    told = json.loads(done.stderr)
    assert (told["event"], told["slug"]) == ("session.stop", "abcd2345")


def test_a_journal_that_is_full_holds_nobody_up(tmp_path: Path) -> None:
    """It listens and never reads."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full, contextlib.closing(JournalSocket(path)) as sink:
        full.bind(str(path))
        fields = fields_of({"event": "a"}, "medforged")
        # The kernel's queue of one socket (net.unix.max_dgram_qlen) is far shorter.
        assert not all(sink.send(fields) for _ in range(100_000))


def described() -> dict[str, str]:
    """The events of the catalog and their ids."""
    return dict(re.findall(r"^# (\S+)\n-- ([0-9a-f]{32})$", CATALOG.read_text(), re.MULTILINE))


def test_the_catalog_names_events_by_their_ids() -> None:
    events = described()
    assert len(events) == CATALOG.read_text().count("\n-- ") > 10
    assert events == {event: message_id(event) for event in events}


def test_every_error_is_described_and_everything_described_is_told() -> None:
    errors, told = set(), set()
    for path in (*(ROOT / "medforged").rglob("*.py"), *(ROOT / "facade").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                told.add(node.value)
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            first = node.args[0]
            if node.func.attr in {"error", "exception"} and isinstance(first, ast.Constant) and "." in str(first.value):
                errors.add(str(first.value))
    assert len(errors) > 8
    assert errors <= described().keys()
    assert described().keys() <= told


def test_systemd_reads_the_catalog(tmp_path: Path) -> None:
    if shutil.which("journalctl") is None:
        pytest.skip("journalctl is missing (apt-get install systemd)")
    home = tmp_path / "usr" / "lib" / "systemd" / "catalog"
    home.mkdir(parents=True)
    (tmp_path / "var" / "lib" / "systemd" / "catalog").mkdir(parents=True)
    shutil.copy(CATALOG, home)
    ask = ["journalctl", f"--root={tmp_path}"]
    subprocess.run([*ask, "--update-catalog"], check=True, capture_output=True, timeout=SECONDS)
    listed = subprocess.run(
        [*ask, "--list-catalog"], check=True, capture_output=True, text=True, timeout=SECONDS
    ).stdout
    assert {line.split()[0] for line in listed.splitlines() if line.strip()} == set(described().values())
    assert "MedForge: Session @SLUG@ has ended" in listed
