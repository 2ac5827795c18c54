"""The subprocess door, on real programs of the base system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medforged.adapters.process import CommandFailed, CommandMissing, CommandTimedOut, run
from tests.fakes.waiting import until

pytestmark = pytest.mark.integration


def _processes(wanted: Callable[[int, int], bool]) -> Iterator[int]:
    """Living processes by their parent and group, those that only wait to be reaped left out."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            _, _, rest = (entry / "stat").read_text().rpartition(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent, group = rest.split()[:3]
        if state not in "ZX" and wanted(int(parent), int(group)):
            yield int(entry.name)


def processes_of_group(group: int) -> list[int]:
    return list(_processes(lambda _, member_of: member_of == group))


def children() -> set[int]:
    """Living processes that we have started."""
    return set(_processes(lambda parent, group: parent == os.getpid()))


def written(path: Path) -> bool:
    """Whether a program has written a whole line to a file."""
    return path.exists() and path.read_text().endswith("\n")


async def test_returns_what_a_program_wrote() -> None:
    result = await run(["sh", "-c", "echo out; echo err >&2"], timeout_seconds=10)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


async def test_passes_arguments_untouched() -> None:
    result = await run(["printf", "%s|", "a b", "$HOME", "; rm -rf x", "*", "-n"], timeout_seconds=10)
    assert result.stdout == "a b|$HOME|; rm -rf x|*|-n|"


async def test_feeds_input() -> None:
    assert (await run(["cat"], timeout_seconds=10, stdin=b"fed")).stdout == "fed"


async def test_without_input_there_is_an_end_of_file_at_once() -> None:
    assert (await run(["cat"], timeout_seconds=10)).stdout == ""


async def test_environment_and_directory_are_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/nowhere")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    result = await run(["sh", "-c", "pwd; env"], timeout_seconds=10)
    directory, *environment = result.stdout.splitlines()
    assert directory == "/"
    assert {line.partition("=")[0] for line in environment} - {"PWD", "_", "SHLVL", "OLDPWD"} == {
        "PATH",
        "LC_ALL",
        "LANG",
    }
    assert (await run(["pwd"], timeout_seconds=10, cwd=tmp_path)).stdout.strip() == str(tmp_path)


async def test_bytes_that_are_no_text_are_replaced() -> None:
    assert (await run(["printf", r"\377"], timeout_seconds=10)).stdout == "\N{REPLACEMENT CHARACTER}"


async def test_a_failure_carries_everything() -> None:
    with pytest.raises(CommandFailed, match=r"sh -c .*: ended with status 3: bad thing happened$") as caught:
        await run(["sh", "-c", "echo out; printf 'bad thing\\nhappened\\n' >&2; exit 3"], timeout_seconds=10)
    assert caught.value.status == 3
    assert caught.value.stdout == "out\n"
    assert caught.value.stderr == "bad thing\nhappened\n"
    assert type(caught.value) is CommandFailed


async def test_a_signal_is_told() -> None:
    with pytest.raises(CommandFailed, match="was ended by signal 15: it said nothing") as caught:
        await run(["sh", "-c", "kill -TERM $$"], timeout_seconds=10)
    assert caught.value.status == -15


async def test_a_missing_program() -> None:
    with pytest.raises(CommandMissing, match="no-such-program: cannot be started: No such file"):
        await run(["no-such-program"], timeout_seconds=10)


async def test_programs_come_from_the_system_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "medforge-only-here"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CommandMissing):
        await run(["medforge-only-here"], timeout_seconds=10)


async def test_a_slow_program_is_killed_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(CommandTimedOut, match=r"did not end within 0\.5 s"):
        await run(["sh", "-c", f"echo $$ > {note}; sleep 600 & sleep 600"], timeout_seconds=0.5)
    # The program itself has been waited for; who is nobody's child any more ends a moment after its signal.
    group = int(note.read_text())
    await until(lambda: not processes_of_group(group))


async def test_a_child_that_holds_the_pipes_does_not_outlive_the_timeout(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(CommandTimedOut):
        await run(["sh", "-c", f"echo $$ > {note}; sleep 600 &"], timeout_seconds=0.5)
    group = int(note.read_text())
    await until(lambda: not processes_of_group(group))


async def test_a_cancelled_caller_leaves_no_process(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    task = asyncio.create_task(run(["sh", "-c", f"echo $$ > {note}; sleep 600"], timeout_seconds=600))
    await until(lambda: written(note))
    group = int(note.read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not processes_of_group(group))


async def test_a_caller_that_is_cancelled_while_a_program_starts_leaves_none(tmp_path: Path) -> None:
    """Whenever it happens: asyncio needs some turns of the loop to start a program."""
    before = children()
    for turns in range(12):
        task = asyncio.create_task(run(["sh", "-c", "sleep 600 & sleep 600"], timeout_seconds=600))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: children() == before)


async def test_a_program_that_does_not_read_its_input_is_killed_too() -> None:
    with pytest.raises(CommandTimedOut):
        await run(["sleep", "600"], timeout_seconds=0.5, stdin=b"x" * 1_000_000)
