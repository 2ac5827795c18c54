"""Reading procfs, and what is made of it when it cannot be read."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from medforged.adapters.procfs import ProcfsProcessTable
from tests.fixtures.procfs import ScriptedProc

pytestmark = pytest.mark.unit

ID = "ab" * 32
OTHER = "cd" * 32


@pytest.fixture
def proc(tmp_path: Path) -> ScriptedProc:
    proc = ScriptedProc(tmp_path / "proc")
    proc.runs(10, f"/docker/{ID}")
    proc.runs(20, f"/docker/{OTHER}")
    proc.runs(30, "/system.slice/ssh.service")
    return proc


async def test_only_what_is_elsewhere_does_not_count(proc: ScriptedProc) -> None:
    table = ProcfsProcessTable(proc.root)

    assert await table.of_container([30, 20, 10, 40, 10], ID) == (10, 40)
    assert await table.of_container([30, 20, 10, 40], OTHER) == (20, 40)
    assert await table.of_container([20, 30], ID) == ()


async def test_without_an_id_all_count(proc: ScriptedProc) -> None:
    assert await ProcfsProcessTable(proc.root).of_container([30, 10], None) == (10, 30)


@pytest.mark.parametrize(
    "container_id", ["", "ab", "system.slice", "/", ID[:-1], ID + "a", ID.upper(), "g" * 64, f"{ID}\n"]
)
async def test_what_is_no_id_proves_nothing(proc: ScriptedProc, container_id: str) -> None:
    assert await ProcfsProcessTable(proc.root).of_container([30, 20], container_id) == (20, 30)


@pytest.mark.parametrize("kind", ["pid", "cgroup"])
@pytest.mark.parametrize("name", ["4026532500", None])
async def test_a_daemon_that_does_not_see_the_host_knows_nothing(
    proc: ScriptedProc, kind: str, name: str | None
) -> None:
    proc.lives_in(kind, name)

    assert await ProcfsProcessTable(proc.root).of_container([10, 20, 30], ID) == (10, 20, 30)


async def test_an_unreadable_list_proves_nothing(proc: ScriptedProc) -> None:
    (proc.root / "20" / "cgroup").unlink()
    (proc.root / "20" / "cgroup").mkdir()

    assert await ProcfsProcessTable(proc.root).of_container([20, 30], ID) == (20,)


async def test_bytes_that_are_no_text_are_read(proc: ScriptedProc) -> None:
    (proc.root / "20" / "cgroup").write_bytes(b"0::/gr\xfcn\n")

    assert await ProcfsProcessTable(proc.root).of_container([20], ID) == ()


@pytest.fixture
def stuck(proc: ScriptedProc) -> Iterator[Path]:
    """A process whose list is not answered until the test has ended."""
    path = proc.root / "50" / "cgroup"
    path.parent.mkdir()
    os.mkfifo(path)
    yield path
    for thread in [thread for thread in threading.enumerate() if thread.name == "procfs"]:
        while thread.is_alive():
            with contextlib.suppress(OSError):  # it does not read at this moment
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            thread.join(0.01)


async def test_a_list_that_is_not_answered_proves_nothing_and_costs_no_more_threads(
    proc: ScriptedProc, stuck: Path
) -> None:
    table = ProcfsProcessTable(proc.root, timeout_seconds=0.05)

    for _ in range(4):
        assert await table.of_container([30, 50], ID) == (30, 50)
    assert sum(thread.name == "procfs" for thread in threading.enumerate()) == 2


async def test_nothing_to_attribute_is_not_looked_at(tmp_path: Path) -> None:
    assert await ProcfsProcessTable(tmp_path / "absent").of_container([], ID) == ()
