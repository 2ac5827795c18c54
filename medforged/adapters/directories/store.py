"""Owns the workspace store over plain directories.

    <root>/<user_id>/<session_id>                              the workspace; 1000:1000, mode 0700
    <root>/.snapshots/<user_id>/<session_id>/<name>/content    a snapshot: a full copy, beside and not below it
    <root>/.snapshots/<user_id>/<session_id>/.partial-<name>   one that is being taken, or was when the host stopped
    <root>/.snapshots/<user_id>/<session_id>/.holds/<name>/<tag>   a hold

A session's container sees its workspace alone, so it reaches no snapshot. A snapshot gets its name, by one rename,
when it is complete and on the device. All directories but workspaces and contents belong to root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from medforged.adapters.blocking import BlockingCalls, CallTimedOut
from medforged.adapters.directories.copying import copy_command, flush_command, remove_command
from medforged.adapters.directories.exchange import exchange
from medforged.adapters.keyed_locks import KeyedLocks
from medforged.adapters.owned_directory import SESSION_OWNER, Owner, hand_over, untrusted_part
from medforged.adapters.process import CommandFailed, Run, run
from medforged.adapters.workspace_requests import check_hold, check_quota, check_snapshot_name
from medforged.domain.adapters import AdapterDescription
from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import Snapshot, Workspace, WorkspaceKey, is_snapshot_name

__all__ = ["DirectoryWorkspaceStore"]

T = TypeVar("T")

_WORKSPACE_MODE = 0o700
# Passable for the session's owner, who copies, and not listable.
_PASSABLE = 0o711
_SNAPSHOTS = ".snapshots"
_PARTIAL = ".partial-"
_RESTORED = ".partial-.restored"  # no snapshot has such a name
_HOLDS = ".holds"
_CONTENT = "content"
_CAVEAT = "plain directories enforce no quota, and a snapshot is a full copy"


class DirectoryWorkspaceStore:
    """WorkspaceStore over directories below `root`. Quotas are accepted and not enforced."""

    def __init__(
        self,
        root: Path,
        *,
        reason: str = "configured",
        owner: Owner = SESSION_OWNER,
        run: Run = run,
        timeout_seconds: float = 30.0,
        copy_timeout_seconds: float = 1800.0,
    ) -> None:
        self._root = root
        self._description = AdapterDescription("workspaces", "directories", real=True, reason=f"{reason}; {_CAVEAT}")
        self._owner = owner
        self._run = run
        self._copy_timeout_seconds = copy_timeout_seconds
        self._blocking = BlockingCalls("directories", limit=8, timeout_seconds=timeout_seconds)
        self._locks = KeyedLocks()

    @property
    def root(self) -> str:
        """What precedes `/<user_id>/<session_id>` in every workspace's name."""
        return str(self._root)

    def describe(self) -> AdapterDescription:
        return self._description

    def locate(self, key: WorkspaceKey) -> Workspace:
        path = self._root / key.relative
        return Workspace(key, str(path), path)

    async def prepare(self) -> None:
        await self._attempt(f"cannot use {self._root} for workspaces", self._prepare)

    async def create(self, key: WorkspaceKey, quota_bytes: int | None) -> Workspace:
        workspace = self.locate(key)
        what = f"cannot create workspace {workspace.dataset}"
        check_quota(what, quota_bytes)
        async with self._locks.hold(key):
            await self._attempt(what, lambda: self._create(workspace.path))
        return workspace

    async def restore(
        self, source: WorkspaceKey, name: str, target: WorkspaceKey, quota_bytes: int | None
    ) -> Workspace:
        workspace = self.locate(target)
        what = f"cannot restore {self.locate(source).dataset}@{name} into {workspace.dataset}"
        check_quota(what, quota_bytes)
        check_snapshot_name(what, name)
        async with self._locks.hold(target):
            if not await self.exists(target):
                copied = await self._copy_snapshot(what, source, name, target)
                await self._attempt(what, lambda: _make(workspace.path.parent, _PASSABLE))
                await self._attempt(what, lambda: copied.rename(workspace.path))
                await self._forget_copy(what, target)
            await self._attempt(what, lambda: self._create(workspace.path))
        return workspace

    async def roll_back(self, key: WorkspaceKey, name: str) -> None:
        workspace = self.locate(key)
        what = f"cannot roll {workspace.dataset} back to {name}"
        check_snapshot_name(what, name)
        async with self._locks.hold(key):
            taken = await self.snapshots(key)
            if name not in [snapshot.name for snapshot in taken]:
                raise WorkspaceError(f"{what}: there is no such snapshot")
            if taken[-1].name != name:
                raise WorkspaceError(
                    f"{what}: it is not the newest snapshot; restore it into another workspace instead"
                )
            copied = await self._copy_snapshot(what, key, name, key)
            # In one step: whenever the host stops, one of the two is the workspace.
            await self._attempt(what, lambda: exchange(copied, workspace.path))
            await self._forget_copy(what, key)

    async def hold(self, key: WorkspaceKey, name: str, tag: str) -> None:
        what = f"cannot hold snapshot {self.locate(key).dataset}@{name}"
        check_hold(what, name, tag)
        async with self._locks.hold(key):
            await self._attempt(what, lambda: self._hold(key, name, tag))

    async def release(self, key: WorkspaceKey, name: str, tag: str) -> None:
        what = f"cannot release snapshot {self.locate(key).dataset}@{name}"
        check_hold(what, name, tag)
        async with self._locks.hold(key):
            await self._attempt(what, lambda: (self._holds_of(key, name) / tag).unlink(missing_ok=True))

    async def exists(self, key: WorkspaceKey) -> bool:
        workspace = self.locate(key)
        return await self._attempt(
            f"cannot look for workspace {workspace.dataset}", lambda: _is_directory(workspace.path)
        )

    async def snapshot(self, key: WorkspaceKey, name: str) -> Snapshot:
        workspace = self.locate(key)
        what = f"cannot take snapshot {workspace.dataset}@{name}"
        check_snapshot_name(what, name)
        async with self._locks.hold(key):
            taken = await self._attempt(what, lambda: self._taken_at(key, name))
            if taken is None:
                taken = await self._take(what, key, name)
        return Snapshot(key, workspace.dataset, name, taken)

    async def snapshots(self, key: WorkspaceKey) -> tuple[Snapshot, ...]:
        workspace = self.locate(key)
        return await self._attempt(
            f"cannot list the snapshots of {workspace.dataset}", lambda: self._list_snapshots(workspace)
        )

    async def is_empty(self, key: WorkspaceKey) -> bool:
        workspace = self.locate(key)
        if await self.snapshots(key):
            return False
        try:
            return await self._blocking.run(lambda: _holds_nothing(workspace.path))
        except (CallTimedOut, OSError):
            return False

    async def discard(self, key: WorkspaceKey) -> None:
        workspace = self.locate(key)
        what = f"cannot discard workspace {workspace.dataset}"
        async with self._locks.hold(key):
            if await self.snapshots(key):
                raise WorkspaceError(f"{what}: it has snapshots below {self._snapshots_of(key)}; only an operator may")
            # Copies that a power cut has left half-made first: without its workspace nobody would look for them.
            holder = self._snapshots_of(key)
            partial = [name for name in await self._attempt(what, lambda: _names(holder)) if name.startswith(_PARTIAL)]
            for name in partial:
                await self._program(what, remove_command(str((holder / name).relative_to(self._root))))
            if await self.exists(key):
                await self._program(what, remove_command(key.relative))

    async def keys(self) -> tuple[WorkspaceKey, ...]:
        return await self._attempt(f"cannot list the workspaces of {self._root}", self._list_keys)

    def _prepare(self) -> None:
        for directory in (self._root, self._root / _SNAPSHOTS):
            if not directory.is_dir():
                directory.mkdir(parents=True)
                directory.chmod(_PASSABLE)
        untrusted = untrusted_part(self._root)
        if untrusted is not None:
            raise OSError(
                errno.EPERM,
                f"{untrusted} can be changed by others than root; `chown root` and `chmod go-w` it, "
                "or set workspaces.directory",
            )

    def _create(self, path: Path) -> None:
        _make(path.parent, _PASSABLE)
        if not _is_directory(path):
            path.mkdir(mode=_WORKSPACE_MODE)
        hand_over(path, self._owner, _WORKSPACE_MODE)

    async def _take(self, what: str, key: WorkspaceKey, name: str) -> datetime:
        """Copy, flush, rename. What a failure leaves behind is removed, and before that by the next attempt."""
        holder = self._snapshots_of(key)
        partial = holder / f"{_PARTIAL}{name}"
        relative = str(partial.relative_to(self._root))
        await self._program(what, remove_command(relative))
        try:
            await self._attempt(what, lambda: self._need(key))
            await self._attempt(what, lambda: self._make_partial(partial))
            await self._program(what, copy_command(key.relative, f"{relative}/{_CONTENT}", self._owner))
            await self._program(what, flush_command(relative))
            await self._attempt(what, lambda: partial.rename(holder / name))
            await self._program(what, flush_command(str(holder.relative_to(self._root))))
        except WorkspaceError:
            await self._program(what, remove_command(relative))
            raise
        taken = await self._attempt(what, lambda: self._taken_at(key, name))
        assert taken is not None
        return taken

    async def _copy_snapshot(self, what: str, source: WorkspaceKey, name: str, target: WorkspaceKey) -> Path:
        """A copy of a snapshot's content beside the target's snapshots, on the device. Nothing is left of a failure."""
        if await self._attempt(what, lambda: self._taken_at(source, name)) is None:
            raise WorkspaceError(f"{what}: there is no such snapshot")
        partial = self._snapshots_of(target) / _RESTORED
        relative = str(partial.relative_to(self._root))
        content = (self._snapshots_of(source) / name / _CONTENT).relative_to(self._root)
        await self._program(what, remove_command(relative))
        try:
            await self._attempt(what, lambda: self._make_partial(partial))
            await self._program(what, copy_command(str(content), f"{relative}/{_CONTENT}", self._owner))
            await self._program(what, flush_command(relative))
        except WorkspaceError:
            await self._program(what, remove_command(relative))
            raise
        return partial / _CONTENT

    async def _forget_copy(self, what: str, target: WorkspaceKey) -> None:
        partial = self._snapshots_of(target) / _RESTORED
        await self._program(what, remove_command(str(partial.relative_to(self._root))))

    def _hold(self, key: WorkspaceKey, name: str, tag: str) -> None:
        self._need_snapshot(key, name)
        for directory in (self._snapshots_of(key) / _HOLDS, self._holds_of(key, name)):
            _make(directory, _PASSABLE)
        (self._holds_of(key, name) / tag).touch()

    def _holds_of(self, key: WorkspaceKey, name: str) -> Path:
        return self._snapshots_of(key) / _HOLDS / name

    def _need_snapshot(self, key: WorkspaceKey, name: str) -> None:
        if self._taken_at(key, name) is None:
            raise FileNotFoundError(0, "there is no such snapshot")

    def _need(self, key: WorkspaceKey) -> None:
        if not _is_directory(self._root / key.relative):
            raise FileNotFoundError(0, "there is no such workspace")

    def _make_partial(self, partial: Path) -> None:
        for directory in reversed((partial, *partial.parents[:3])):
            _make(directory, _PASSABLE)
        content = partial / _CONTENT
        content.mkdir(mode=_WORKSPACE_MODE)
        hand_over(content, self._owner, _WORKSPACE_MODE)

    def _snapshots_of(self, key: WorkspaceKey) -> Path:
        return self._root / _SNAPSHOTS / key.relative

    def _taken_at(self, key: WorkspaceKey, name: str) -> datetime | None:
        """When a snapshot was taken: the time at which its directory, which only root writes, got its content."""
        try:
            status = (self._snapshots_of(key) / name).lstat()
        except FileNotFoundError:
            return None
        return datetime.fromtimestamp(status.st_mtime, UTC)

    def _list_snapshots(self, workspace: Workspace) -> tuple[Snapshot, ...]:
        found = []
        for name in _names(self._snapshots_of(workspace.key)):
            taken = self._taken_at(workspace.key, name) if is_snapshot_name(name) else None
            if taken is not None:
                found.append(Snapshot(workspace.key, workspace.dataset, name, taken))
        return tuple(sorted(found, key=lambda snapshot: (snapshot.created_at, snapshot.name)))

    def _list_keys(self) -> tuple[WorkspaceKey, ...]:
        # A root that has gone is an error, not a store without workspaces: nobody shall act on an empty answer.
        users = [entry.name for entry in os.scandir(self._root) if entry.is_dir(follow_symlinks=False)]
        keys = (WorkspaceKey.parse(f"{user}/{session}") for user in users for session in _names(self._root / user))
        return tuple(key for key in keys if key is not None and _is_directory(self._root / key.relative))

    async def _attempt(self, what: str, call: Callable[[], T]) -> T:
        """Run a call on a thread. Raises WorkspaceError."""
        try:
            return await self._blocking.run(call)
        except CallTimedOut as error:
            raise WorkspaceError(f"{what}: {error}") from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise WorkspaceError(f"{what}: {where}{error.strerror or error}") from error

    async def _program(self, what: str, argv: list[str]) -> None:
        """Run a program in the root. Raises WorkspaceError."""
        try:
            await self._run(argv, timeout_seconds=self._copy_timeout_seconds, cwd=self._root)
        except CommandFailed as error:
            raise WorkspaceError(f"{what}: {error.reason}") from error


def _is_directory(path: Path) -> bool:
    """Whether there is a directory, and not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _holds_nothing(path: Path) -> bool:
    """Whether a directory is absent or has nothing in it. A link to one is neither. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        with os.scandir(descriptor) as entries:
            return next(entries, None) is None
    finally:
        os.close(descriptor)


def _make(path: Path, mode: int) -> None:
    """Make one directory; another thread may have done so."""
    try:
        path.mkdir()
    except FileExistsError:
        if not _is_directory(path):
            raise
    else:
        path.chmod(mode)


def _names(directory: Path) -> list[str]:
    """What is in a directory; nothing where it does not exist."""
    try:
        return sorted(entry.name for entry in os.scandir(directory))
    except FileNotFoundError:
        return []
