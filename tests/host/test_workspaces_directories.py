"""Plain directories as root: what belongs to whom, and what a tenant's files can do to a snapshot of them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from medforged.adapters.directories.store import DirectoryWorkspaceStore
from medforged.domain.errors import WorkspaceError
from tests.fakes.workspaces import workspace_key

pytestmark = pytest.mark.host

KEY = workspace_key(1)


@pytest.fixture
async def store(tmp_path: Path) -> DirectoryWorkspaceStore:
    """In a directory that the owner of sessions cannot even pass through, as /var/lib/… may be."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    made = DirectoryWorkspaceStore(closed / "workspaces")
    await made.prepare()
    return made


def content(store: DirectoryWorkspaceStore, name: str) -> Path:
    return Path(store.root, ".snapshots", KEY.relative, name, "content")


def run_as(user: int, *argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--")
    return subprocess.run([*become, *argv], cwd=cwd, capture_output=True, text=True, check=False)


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


async def test_a_workspace_belongs_to_its_session_and_all_around_it_to_root(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    assert owner(path) == (1000, 1000)
    assert owner(path.parent) == owner(Path(store.root)) == (0, 0)
    await store.snapshot(KEY, "stop-1")
    assert owner(content(store, "stop-1")) == (1000, 1000)
    for directory in content(store, "stop-1").parents[:4]:
        assert owner(directory) == (0, 0)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o711


async def test_a_workspace_that_root_still_owns_is_handed_over(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    os.chown(path, 0, 0)
    path.chmod(0o755)
    await store.create(KEY, None)
    assert owner(path) == (1000, 1000)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


async def test_a_copy_keeps_owners_and_is_made_without_privilege(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    (path / "mine").write_text("mine")
    os.chown(path / "mine", 1000, 1000)
    await store.snapshot(KEY, "stop-1")
    assert owner(content(store, "stop-1") / "mine") == (1000, 1000)


async def test_what_the_owner_may_not_read_is_not_read_for_it(store: DirectoryWorkspaceStore) -> None:
    """The copy is the owner's own doing: a file of root's in a workspace (none should be) gives its content to nobody."""
    path = (await store.create(KEY, None)).path
    (path / "roots").write_text("secret")
    (path / "roots").chmod(0o600)
    with pytest.raises(WorkspaceError, match=r"cannot take snapshot .*roots.*Permission denied"):
        await store.snapshot(KEY, "stop-1")
    assert await store.snapshots(KEY) == ()
    assert not content(store, "stop-1").exists()
    (path / "roots").unlink()
    await store.snapshot(KEY, "stop-1")


async def test_device_nodes_cannot_come_to_be_in_a_copy(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    os.mknod(path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with pytest.raises(WorkspaceError, match="Operation not permitted"):
        await store.snapshot(KEY, "stop-1")
    assert await store.snapshots(KEY) == ()


async def test_setuid_bits_of_others_do_not_come_to_be_in_a_copy(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    shutil.copy("/usr/bin/id", path / "program")
    (path / "program").chmod(0o4755)
    await store.snapshot(KEY, "stop-1")
    copy = content(store, "stop-1") / "program"
    assert owner(copy) == (1000, 1000)
    assert not copy.stat().st_mode & stat.S_ISUID


async def test_another_session_reaches_neither_workspace_nor_snapshot(store: DirectoryWorkspaceStore) -> None:
    path = (await store.create(KEY, None)).path
    (path / "file").write_text("mine")
    (path / "file").chmod(0o644)
    await store.snapshot(KEY, "stop-1")
    for directory in (path, content(store, "stop-1")):
        assert "Permission denied" in run_as(1001, "ls", ".", cwd=directory).stderr
        # The same as the owner, so that it is the owner that makes the difference.
        assert run_as(1000, "cat", "file", cwd=directory).stdout == "mine"


async def test_a_workspace_is_looked_into_and_what_a_tenant_links_to_is_not(
    store: DirectoryWorkspaceStore, tmp_path: Path
) -> None:
    path = (await store.create(KEY, None)).path
    assert await store.is_empty(KEY)
    (tmp_path / "empty").mkdir()
    assert run_as(1000, "ln", "-s", str(tmp_path / "empty"), "link", cwd=path).returncode == 0
    assert not await store.is_empty(KEY)
    (path / "link").unlink()
    assert await store.is_empty(KEY)
    assert run_as(1000, "chmod", "0000", ".", cwd=path).returncode == 0
    assert await store.is_empty(KEY)
