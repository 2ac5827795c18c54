"""The table of counters between processes: none counts past another, and none that dies or stops holds up the others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from facade.limits.table import SharedTable
from facade.limits.windows import Window

pytestmark = pytest.mark.integration

WINDOW = Window(limit=1000, seconds=86_400)
NOW = 10**15

# Takes as often as it can get, after a word from its parent, and says how often that was.
TAKE = """
import sys
from facade.limits.table import SharedTable
from facade.limits.windows import Window
table = SharedTable.attach(int(sys.argv[1]), 1)
window = Window(1000, 86_400)
print("ready", flush=True)
sys.stdin.readline()
print(sum(table.take(0, b"key", window, 10**15) == 0 for _ in range(1000)), flush=True)
"""

# Holds a set in the middle of a change.
HOLD = """
import sys, time
from facade.limits.table import SharedTable
table = SharedTable.attach(int(sys.argv[1]), 1)
tag, at = table._place(0, b"key")
with table.locked(at):
    table._memory[at : at + 8] = tag[:8]
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def table() -> Iterator[SharedTable]:
    made = SharedTable.create(1)
    yield made
    made.close()


@contextlib.contextmanager
def process(script: str, table: SharedTable) -> Iterator[subprocess.Popen[str]]:
    """A program that has the table, ended with the context; it has said its first word."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, str(table.fd)],
        pass_fds=(table.fd,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline().strip() in ("ready", "held")
            yield running
        finally:
            running.kill()


def test_processes_that_count_at_once_stay_within_the_limit_together(table: SharedTable) -> None:
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(process(TAKE, table)) for _ in range(4)]
        for one in running:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        counts = [int(one.stdout.readline()) for one in running if one.stdout is not None]
    assert sum(counts) == WINDOW.limit
    assert sum(count > 0 for count in counts) > 1, "only one of them ran: nothing was shown"
    assert table.take(0, b"key", WINDOW, NOW) > 0


def test_a_process_that_is_killed_while_it_holds_a_set_holds_up_nobody(table: SharedTable) -> None:
    with process(HOLD, table) as holder, capture_logs() as logs:
        holder.send_signal(signal.SIGKILL)
        assert holder.wait() == -signal.SIGKILL
        for _ in range(WINDOW.limit):
            assert table.take(0, b"key", WINDOW, NOW) == 0
        assert table.take(0, b"key", WINDOW, NOW) > 0
    assert logs == [], "the lock of a dead process was waited for"


def test_a_process_that_is_stopped_while_it_holds_a_set_holds_up_nobody_for_long(table: SharedTable) -> None:
    with process(HOLD, table) as holder, capture_logs() as logs:
        holder.send_signal(signal.SIGSTOP)
        for _ in range(10):
            assert table.take(0, b"key", WINDOW, NOW) == 0
        # Other sets are nobody's business.
        assert table.take(0, b"another key", WINDOW, NOW) == 0
    assert [entry["event"] for entry in logs] == ["limits.locked"]


def test_a_held_set_is_really_held(table: SharedTable) -> None:
    """What the two tests above rely on."""
    with process(HOLD, table):
        _, at = table._place(0, b"key")
        assert not table._lock(at)


def test_the_table_is_inherited_by_nobody_who_is_not_given_it(table: SharedTable) -> None:
    assert not os.get_inheritable(table.fd)
    attached = SharedTable.attach(os.dup(table.fd), 1)
    assert not os.get_inheritable(attached.fd)
    attached.close()
