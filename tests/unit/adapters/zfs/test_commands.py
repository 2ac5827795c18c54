"""Datasets through the commands: argument lists, and answers as they were recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from medforged.adapters.process import CommandMissing, CommandResult, CommandTimedOut
from medforged.adapters.zfs.commands import CommandDatasets
from medforged.adapters.zfs.listings import PoolState
from medforged.adapters.zfs.problems import ZfsFailure, ZfsProblem
from tests.fakes.process import Recording, ScriptedRun, load_recordings

pytestmark = pytest.mark.unit

FIXTURES = Path(__file__).parents[3] / "fixtures" / "zfs"
ROOT = "mfwsrec/medforge/workspaces"
USER = f"{ROOT}/0b9b3f52-2f0e-4c0a-9f5e-4a2f4f6a5d11"
FIRST = f"{USER}/11111111-1111-4111-8111-111111111111"
ABSENT = f"{USER}/0b9b3f52-2f0e-4c0a-9f5e-4a2f4f6a5d11"


@pytest.fixture(params=["zfs-fuse-0.7.0", "openzfs-2.3.9"])
def recordings(request: pytest.FixtureRequest) -> list[Recording]:
    return load_recordings(FIXTURES / f"{request.param}.json")


def recorded(recordings: list[Recording], *, failed: bool) -> ScriptedRun:
    """Answers with the recording that succeeded, or with the one that failed, where a command has both."""
    return ScriptedRun(recording for recording in recordings if bool(recording.status) is failed)


def problem(caught: pytest.ExceptionInfo[ZfsFailure]) -> ZfsProblem:
    return caught.value.problem


async def test_the_recorded_commands_are_those_that_are_run(recordings: list[Recording]) -> None:
    # A command that is not in the recordings makes ScriptedRun raise.
    run = recorded(recordings, failed=False)
    datasets = CommandDatasets(run=run)
    assert await datasets.pools() == [PoolState("mfwsrec", "ONLINE")]
    await datasets.create_group("mfwsrec/medforge")
    await datasets.create_root(ROOT, Path("/", ROOT))
    assert await datasets.mountpoint(ROOT) == f"/{ROOT}"
    await datasets.create_group(USER)
    await datasets.create(FIRST, 32 * 1024 * 1024)
    assert await datasets.exists(FIRST)
    await datasets.snapshot(FIRST, "stop-1771304304293")
    await datasets.snapshot(FIRST, "death-1771304304294")
    assert [entry.name for entry in await datasets.snapshots(FIRST)] == ["stop-1771304304293", "death-1771304304294"]
    assert FIRST in await datasets.filesystems(ROOT, 2)
    assert f"{FIRST}/child" not in await datasets.filesystems(ROOT, 2)


async def test_without_a_quota_none_is_set(recordings: list[Recording]) -> None:
    run = recorded(recordings, failed=False)
    await CommandDatasets(run=run).create(f"{USER}/22222222-2222-4222-8222-222222222222", None)
    assert run.calls == [("zfs", "create", f"{USER}/22222222-2222-4222-8222-222222222222")]


async def test_recorded_failures(recordings: list[Recording]) -> None:
    datasets = CommandDatasets(run=recorded(recordings, failed=True))
    with pytest.raises(ZfsFailure) as caught:
        await datasets.create(FIRST, 32 * 1024 * 1024)
    assert problem(caught) is ZfsProblem.EXISTS
    with pytest.raises(ZfsFailure) as caught:
        await datasets.snapshot(FIRST, "stop-1771304304293")
    assert problem(caught) is ZfsProblem.EXISTS
    with pytest.raises(ZfsFailure) as caught:
        await datasets.destroy(FIRST)
    assert problem(caught) is ZfsProblem.HAS_CHILDREN
    with pytest.raises(ZfsFailure) as caught:
        await datasets.snapshot(ABSENT, "stop-1")
    assert problem(caught) is ZfsProblem.MISSING
    assert "usage" not in caught.value.said  # which OpenZFS adds
    with pytest.raises(ZfsFailure) as caught:
        await datasets.snapshots(ABSENT)
    assert problem(caught) is ZfsProblem.MISSING
    assert "\n" not in caught.value.said
    assert not await datasets.exists(ABSENT)


async def test_no_pools_is_no_error() -> None:
    run = ScriptedRun([Recording(("zpool", "list", "-H", "-o", "name,health"), 0, "", "")])
    assert await CommandDatasets(run=run).pools() == []


async def test_in_user_space_changes_take_turns_and_listings_do_not(recordings: list[Recording]) -> None:
    turns = ("flock", "-F", "/run/medforge-zfs-fuse.lock")
    running, most = 0, 0

    async def run(
        argv: Sequence[str], *, timeout_seconds: float, stdin: bytes | None = None, cwd: Path | None = None
    ) -> CommandResult:
        nonlocal running, most
        assert argv[:4] == (*turns, "zfs")
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return CommandResult("", "")

    datasets = CommandDatasets(in_turns=True, run=run)
    changes = [datasets.create(FIRST, None), datasets.create_group(USER), datasets.create_root(ROOT, Path("/x"))]
    more = [datasets.mount(FIRST), datasets.snapshot(FIRST, "stop-1"), datasets.destroy(FIRST)]
    await asyncio.gather(*changes, *more)
    assert most == 1

    listing = recorded(recordings, failed=False)
    reads = CommandDatasets(in_turns=True, run=listing)
    await asyncio.gather(reads.pools(), reads.exists(FIRST), reads.snapshots(FIRST), reads.filesystems(ROOT, 2))
    assert all(call[0] in {"zfs", "zpool"} for call in listing.calls)


async def test_who_waits_for_a_stuck_command_is_told_too() -> None:
    gate = asyncio.Event()

    async def run(
        argv: Sequence[str], *, timeout_seconds: float, stdin: bytes | None = None, cwd: Path | None = None
    ) -> CommandResult:
        await gate.wait()
        return CommandResult("", "")

    datasets = CommandDatasets(in_turns=True, timeout_seconds=0.05, run=run)
    stuck = asyncio.create_task(datasets.create(FIRST, None))
    await asyncio.sleep(0)
    with pytest.raises(ZfsFailure, match=r"`zfs snapshot` did not get its turn within 0\.05 s") as caught:
        await datasets.snapshot(FIRST, "stop-1")
    assert problem(caught) is ZfsProblem.STUCK
    gate.set()
    await stuck
    await datasets.snapshot(FIRST, "stop-1")


async def test_a_missing_command() -> None:
    run = ScriptedRun(answer=lambda argv: CommandMissing(argv, None, "", "", "cannot be started: No such file"))
    with pytest.raises(ZfsFailure, match="the zfs command cannot be started") as caught:
        await CommandDatasets(run=run).exists(FIRST)
    assert problem(caught) is ZfsProblem.NOT_INSTALLED


async def test_a_command_that_does_not_end() -> None:
    run = ScriptedRun(answer=lambda argv: CommandTimedOut(argv, None, "", "", "did not end within 30 s"))
    with pytest.raises(ZfsFailure, match="`zfs snapshot` did not end within 30 s") as caught:
        await CommandDatasets(run=run).snapshot(FIRST, "stop-1")
    assert problem(caught) is ZfsProblem.STUCK


async def test_a_command_that_fails_without_a_word() -> None:
    run = ScriptedRun([Recording(("zfs", "destroy", FIRST), 139, "", "")])
    with pytest.raises(ZfsFailure, match="ended with status 139") as caught:
        await CommandDatasets(run=run).destroy(FIRST)
    assert problem(caught) is ZfsProblem.OTHER
