"""The directory store with real files of the test's own, as whoever runs it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from medforged.adapters.directories.store import DirectoryWorkspaceStore
from medforged.adapters.owned_directory import Owner
from medforged.adapters.process import CommandFailed, CommandResult, run
from medforged.domain.errors import WorkspaceError
from tests.fakes.workspaces import workspace_key

pytestmark = pytest.mark.integration

KEY = workspace_key(1)
OURSELVES = Owner(os.geteuid(), os.getegid())


@pytest.fixture
async def store(tmp_path: Path) -> DirectoryWorkspaceStore:
    made = DirectoryWorkspaceStore(tmp_path / "workspaces", owner=OURSELVES)
    await made.prepare()
    return made


def content(store: DirectoryWorkspaceStore, name: str) -> Path:
    """Where a snapshot's files are."""
    return Path(store.root, ".snapshots", KEY.relative, name, "content")


def half_made(store: DirectoryWorkspaceStore) -> Path:
    """What a copy of stop-1 that was cut off has left behind."""
    partial = Path(store.root, ".snapshots", KEY.relative, ".partial-stop-1")
    (partial / "content").mkdir(parents=True)
    (partial / "content" / "file").write_text("ha")
    (partial / "content" / "stale").touch()
    return partial


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_says_what_it_does_not_do(tmp_path: Path) -> None:
    reason = DirectoryWorkspaceStore(tmp_path, reason="this host has no ZFS").describe().reason
    assert reason == "this host has no ZFS; plain directories enforce no quota, and a snapshot is a full copy"


async def test_makes_private_workspaces_below_directories_that_cannot_be_listed(store: DirectoryWorkspaceStore) -> None:
    workspace = await store.create(KEY, 1024)
    assert mode(workspace.path) == 0o700
    assert workspace.path.stat().st_uid == OURSELVES.uid
    for directory in (workspace.path.parent, Path(store.root), Path(store.root, ".snapshots")):
        assert mode(directory) == 0o711


async def test_repairs_a_workspace_whose_creation_was_cut_off(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    (path / "kept").touch()
    path.chmod(0o755)
    await store.create(KEY, None)
    assert mode(path) == 0o700
    assert (path / "kept").exists()


async def test_a_snapshot_keeps_what_the_workspace_had(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    (path / "code" / "deep").mkdir(parents=True)
    (path / "code" / "deep" / "model.py").write_text("first")
    (path / "code" / "deep" / "model.py").chmod(0o640)
    (path / "code" / "run").symlink_to("deep/model.py")
    os.link(path / "code" / "deep" / "model.py", path / "hard")
    os.utime(path / "hard", ns=(1, 1_771_304_304_000_000_000))
    with (path / "sparse").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    (path / "read-only").mkdir()
    (path / "read-only" / "file").write_text("x")
    (path / "read-only").chmod(0o555)
    await store.snapshot(KEY, "stop-1")
    (path / "code" / "deep" / "model.py").write_text("second")
    shutil.rmtree(path / "code")

    copy = content(store, "stop-1")
    assert (copy / "code" / "deep" / "model.py").read_text() == "first"
    assert mode(copy / "code" / "deep" / "model.py") == 0o640
    assert (copy / "code" / "run").readlink() == Path("deep/model.py")
    assert (copy / "hard").stat().st_ino == (copy / "code" / "deep" / "model.py").stat().st_ino
    assert (copy / "hard").stat().st_ino != (path / "hard").stat().st_ino
    assert (copy / "hard").stat().st_mtime_ns == 1_771_304_304_000_000_000
    assert (copy / "sparse").stat().st_size == 64 * 1024 * 1024
    assert (copy / "sparse").stat().st_blocks * 512 < 1024 * 1024
    assert mode(copy / "read-only") == 0o555
    assert (path / "hard").read_text() == "second"


async def test_links_are_copied_and_never_followed(store: DirectoryWorkspaceStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    path = (await store.create(KEY, None)).path
    (path / "out").symlink_to(secret)
    (path / "absolute").symlink_to(secret / "key")
    (path / "loop").symlink_to(".")
    (path / "broken").symlink_to("/nowhere/at/all")
    await store.snapshot(KEY, "stop-1")
    copy = content(store, "stop-1")
    assert sorted(entry.name for entry in copy.iterdir()) == ["absolute", "broken", "loop", "out"]
    assert all(entry.is_symlink() for entry in copy.iterdir())
    assert [file for file in copy.rglob("*") if not file.is_symlink()] == []
    assert (secret / "key").read_text() == "secret"


async def test_odd_names_are_names(store: DirectoryWorkspaceStore, tmp_path: Path) -> None:
    names = [
        "-rf",
        "--reference=x",
        "--help",
        "$(touch pwned)",
        "; touch pwned",
        "a\nb",
        "ü",
        " ",
        "*",
        ".zfs",
        ".hidden",
    ]
    path = (await store.create(KEY, None)).path
    for name in names:
        (path / name).write_text(name)
    (path / os.fsdecode(b"\xff\xfe")).touch()
    await store.snapshot(KEY, "stop-1")
    assert {os.fsencode(entry.name) for entry in content(store, "stop-1").iterdir()} == {
        *(name.encode() for name in names),
        b"\xff\xfe",
    }
    assert "pwned" not in [name for _, _, files in os.walk(tmp_path) for name in files]


async def test_pipes_and_sockets_stop_nothing(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    os.mkfifo(path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        # A path of its own is too long for a socket's address.
        descriptor = os.open(path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{descriptor}/socket")
        os.close(descriptor)
    (path / "file").write_text("kept")
    await store.snapshot(KEY, "stop-1")
    copy = content(store, "stop-1")
    assert (copy / "file").read_text() == "kept"
    assert (copy / "pipe").is_fifo()


async def test_when_a_snapshot_was_taken(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    os.utime(path, (1, 1))
    before = time.time()
    taken = await store.snapshot(KEY, "stop-1")
    # The kernel stamps files with a clock that ticks some 250 times a second.
    assert before - 0.1 <= taken.created_at.timestamp() <= time.time() + 0.1


async def test_a_snapshot_that_was_cut_off_is_none_and_is_taken_anew(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    (path / "file").write_text("whole")
    partial = half_made(store)
    assert await store.snapshots(KEY) == ()
    await store.snapshot(KEY, "stop-1")
    assert names_in(content(store, "stop-1")) == ["file"]
    assert (content(store, "stop-1") / "file").read_text() == "whole"
    assert not partial.exists()


async def test_a_failed_snapshot_leaves_nothing(tmp_path: Path) -> None:
    async def full(
        argv: Sequence[str], *, timeout_seconds: float, stdin: bytes | None = None, cwd: Path | None = None
    ) -> CommandResult:
        result = await run(argv, timeout_seconds=timeout_seconds, stdin=stdin, cwd=cwd)
        if "cp" in argv:
            raise CommandFailed(argv, 1, "", "", "ended with status 1: No space left on device")
        return result

    store = DirectoryWorkspaceStore(tmp_path / "workspaces", owner=OURSELVES, run=full)
    await store.prepare()
    path = (await store.create(KEY, None)).path
    (path / "file").write_text("kept")
    with pytest.raises(WorkspaceError, match=r"cannot take snapshot .*@stop-1: ended with status 1: No space left"):
        await store.snapshot(KEY, "stop-1")
    assert await store.snapshots(KEY) == ()
    assert names_in(Path(store.root, ".snapshots", KEY.relative)) == []
    assert (path / "file").read_text() == "kept"


async def test_discarding_removes_read_only_directories_and_follows_no_link(
    store: DirectoryWorkspaceStore, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    path = (await store.create(KEY, None)).path
    (path / "out").symlink_to(outside)
    half = half_made(store)
    await store.discard(KEY)
    assert not path.exists()
    assert not half.exists()
    assert (outside / "file").exists()


async def test_strangers_are_no_workspaces(store: DirectoryWorkspaceStore, tmp_path: Path) -> None:
    await store.create(KEY, None)
    await store.snapshot(KEY, "stop-1")
    other = workspace_key(2)
    root = Path(store.root)
    (root / "lost+found" / str(other.session_id)).mkdir(parents=True)
    (root / str(KEY.user_id) / "notes").mkdir()
    (root / str(KEY.user_id) / str(other.session_id)).write_text("a file")
    (root / str(workspace_key(1, user=2).user_id)).symlink_to(root / str(KEY.user_id))
    assert await store.keys() == (KEY,)


async def test_a_link_in_the_place_of_a_workspace_is_none(store: DirectoryWorkspaceStore, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o755)
    target.chmod(0o755)
    path = store.locate(KEY).path
    path.parent.mkdir()
    path.symlink_to(target)
    assert not await store.exists(KEY)
    assert await store.keys() == ()
    with pytest.raises(WorkspaceError, match="cannot create workspace"):
        await store.create(KEY, None)
    assert mode(target) == 0o755


async def test_a_root_that_has_gone_is_no_empty_answer(store: DirectoryWorkspaceStore) -> None:
    shutil.rmtree(store.root)
    with pytest.raises(WorkspaceError, match=r"cannot list the workspaces of .*No such file"):
        await store.keys()


async def test_a_root_that_others_can_change_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "workspaces"
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(WorkspaceError, match=r"can be changed by others than root; .*set workspaces\.directory"):
        await DirectoryWorkspaceStore(root, owner=OURSELVES).prepare()


async def test_what_is_empty(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    assert await store.is_empty(KEY)
    (path / ".hidden").mkdir()
    assert not await store.is_empty(KEY)
    (path / ".hidden").rmdir()
    await store.snapshot(KEY, "stop-1")
    assert not await store.is_empty(KEY)
    path.rmdir()
    assert not await store.is_empty(KEY)


async def test_what_cannot_be_looked_into_is_not_empty(store: DirectoryWorkspaceStore, tmp_path: Path) -> None:
    path = (await store.create(KEY, None)).path
    path.rmdir()
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    assert not await store.is_empty(KEY)
    path.unlink()
    path.touch()
    assert not await store.is_empty(KEY)
