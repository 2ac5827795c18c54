"""Owns the workspace store over ZFS datasets: what happens in which order, and what is undone when it fails."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from medforged.adapters.blocking import BlockingCalls, CallTimedOut
from medforged.adapters.keyed_locks import KeyedLocks
from medforged.adapters.owned_directory import SESSION_OWNER, Owner, hand_over, untrusted_part
from medforged.adapters.workspace_requests import check_hold, check_quota, check_snapshot_name
from medforged.adapters.zfs.contents import holds_nothing
from medforged.adapters.zfs.datasets import Datasets
from medforged.adapters.zfs.layout import Layout
from medforged.adapters.zfs.mounts import Mounts
from medforged.adapters.zfs.problems import ZfsFailure, ZfsProblem, no_such_pool
from medforged.domain.adapters import AdapterDescription
from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import Snapshot, Workspace, WorkspaceKey
from medforged.ports.clock import Clock

__all__ = ["ZfsWorkspaceStore"]

T = TypeVar("T")

_WORKSPACE_MODE = 0o700
# Passable and not listable: to reach a workspace from the host one has to know both of its UUIDs already.
_ROOT_MODE = 0o711
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0


class ZfsWorkspaceStore:
    """WorkspaceStore over datasets, laid out as `layout` says.

    Operations on one user's workspaces wait for each other, so that first sessions of one user do not race for
    the user's dataset; different users' run at once. `busy_seconds` bounds how long a busy dataset is retried.
    """

    def __init__(
        self,
        layout: Layout,
        datasets: Datasets,
        mounts: Mounts,
        clock: Clock,
        *,
        adapter: str,
        reason: str,
        owner: Owner = SESSION_OWNER,
        busy_seconds: float = 10.0,
        timeout_seconds: float = 30.0,
    ) -> None:
        self._layout = layout
        self._datasets = datasets
        self._mounts = mounts
        self._clock = clock
        self._description = AdapterDescription("workspaces", adapter, real=True, reason=reason)
        self._owner = owner
        self._busy_seconds = busy_seconds
        self._blocking = BlockingCalls("zfs-mounts", limit=8, timeout_seconds=timeout_seconds)
        self._locks = KeyedLocks()

    @property
    def root(self) -> str:
        """What precedes `/<user_id>/<session_id>` in every workspace's name."""
        return self._layout.root_dataset

    def describe(self) -> AdapterDescription:
        return self._description

    def locate(self, key: WorkspaceKey) -> Workspace:
        return self._layout.workspace(key)

    async def prepare(self) -> None:
        what = f"cannot use {self.root} for workspaces"
        try:
            await self._check_pool(what)
            await self._make_root(what)
            await self._blocking.run(self._make_mount_root)
        except ZfsFailure as failure:
            raise _error(what, failure) from failure
        except CallTimedOut as error:
            raise WorkspaceError(f"{what}: {error}") from error
        except OSError as error:
            raise WorkspaceError(
                f"{what}: {self._layout.mount_root}: {error.strerror}; correct that, or set workspaces.mount_root"
            ) from error

    async def create(self, key: WorkspaceKey, quota_bytes: int | None) -> Workspace:
        workspace = self.locate(key)
        what = f"cannot create workspace {workspace.dataset}"
        return await self._provide(
            workspace, quota_bytes, what, lambda: self._datasets.create(workspace.dataset, quota_bytes)
        )

    async def restore(
        self, source: WorkspaceKey, name: str, target: WorkspaceKey, quota_bytes: int | None
    ) -> Workspace:
        origin, workspace = self.locate(source).dataset, self.locate(target)
        what = f"cannot restore {origin}@{name} into {workspace.dataset}"
        check_snapshot_name(what, name)
        return await self._provide(
            workspace, quota_bytes, what, lambda: self._datasets.clone(origin, name, workspace.dataset, quota_bytes)
        )

    async def _provide(
        self, workspace: Workspace, quota_bytes: int | None, what: str, make: Callable[[], Awaitable[None]]
    ) -> Workspace:
        """Make it unless it is there, see that it is mounted, and make it its owner's."""
        check_quota(what, quota_bytes)
        async with self._locks.hold(workspace.key.user_id):
            fresh = False
            try:
                fresh = await self._make(workspace, make)
                if not fresh and await self._blocking.run(lambda: self._mounts.find(workspace.path)) is None:
                    await self._patiently(lambda: self._datasets.mount(workspace.dataset))
                await self._blocking.run(lambda: self._settle(workspace))
            except ZfsFailure as failure:
                # Only what this call is known to have made is undone. After a timeout nobody knows: the dataset may
                # have been there before, with somebody's work, so it is left to discard.
                fresh = fresh or failure.problem is ZfsProblem.MADE_NOT_MOUNTED
                raise _error(f"{what}{await self._undo(workspace, fresh=fresh)}", failure) from failure
            except CallTimedOut as error:
                raise WorkspaceError(f"{what}{await self._undo(workspace, fresh=fresh)}: {error}") from error
            except OSError as error:
                reason = f"{workspace.path}: {_explain(error)}"
                raise WorkspaceError(f"{what}{await self._undo(workspace, fresh=fresh)}: {reason}") from error
        return workspace

    async def exists(self, key: WorkspaceKey) -> bool:
        workspace = self.locate(key)
        try:
            return await self._datasets.exists(workspace.dataset)
        except ZfsFailure as failure:
            raise _error(f"cannot look for workspace {workspace.dataset}", failure) from failure

    async def snapshot(self, key: WorkspaceKey, name: str) -> Snapshot:
        workspace = self.locate(key)
        what = f"cannot take snapshot {workspace.dataset}@{name}"
        check_snapshot_name(what, name)
        try:
            try:
                await self._datasets.snapshot(workspace.dataset, name)
            except ZfsFailure as failure:
                if failure.problem is not ZfsProblem.EXISTS:
                    raise
            entries = await self._datasets.snapshots(workspace.dataset)
        except ZfsFailure as failure:
            raise _error(what, failure) from failure
        for entry in entries:
            if entry.name == name:
                return Snapshot(key, workspace.dataset, name, entry.created_at)
        raise WorkspaceError(f"{what}: it was taken and is gone again; see `zpool history -i {self._layout.pool}`")

    async def snapshots(self, key: WorkspaceKey) -> tuple[Snapshot, ...]:
        workspace = self.locate(key)
        try:
            entries = await self._datasets.snapshots(workspace.dataset)
        except ZfsFailure as failure:
            if failure.problem is ZfsProblem.MISSING:
                return ()
            raise _error(f"cannot list the snapshots of {workspace.dataset}", failure) from failure
        return tuple(Snapshot(key, workspace.dataset, entry.name, entry.created_at) for entry in entries)

    async def roll_back(self, key: WorkspaceKey, name: str) -> None:
        dataset = self.locate(key).dataset
        what = f"cannot roll {dataset} back to {name}"
        check_snapshot_name(what, name)
        async with self._locks.hold(key.user_id):
            try:
                await self._patiently(lambda: self._datasets.roll_back(dataset, name))
            except ZfsFailure as failure:
                raise _error(what, failure) from failure

    async def hold(self, key: WorkspaceKey, name: str, tag: str) -> None:
        dataset = self.locate(key).dataset
        what = f"cannot hold snapshot {dataset}@{name}"
        check_hold(what, name, tag)
        try:
            await _unless_exists(self._datasets.hold(dataset, name, tag))
        except ZfsFailure as failure:
            raise _error(what, failure) from failure

    async def release(self, key: WorkspaceKey, name: str, tag: str) -> None:
        dataset = self.locate(key).dataset
        what = f"cannot release snapshot {dataset}@{name}"
        check_hold(what, name, tag)
        try:
            await self._datasets.release(dataset, name, tag)
        except ZfsFailure as failure:
            if failure.problem is not ZfsProblem.MISSING:
                raise _error(what, failure) from failure

    async def is_empty(self, key: WorkspaceKey) -> bool:
        workspace = self.locate(key)
        try:
            below = await self._datasets.filesystems(workspace.dataset, depth=1)
            kept = await self._datasets.snapshots(workspace.dataset)
        except ZfsFailure as failure:
            if failure.problem is ZfsProblem.MISSING:
                return True
            raise _error(f"cannot look into workspace {workspace.dataset}", failure) from failure
        if kept or any(name != workspace.dataset for name in below):
            return False
        try:
            return await self._blocking.run(lambda: holds_nothing(self._mounts, workspace.dataset, workspace.path))
        except (CallTimedOut, OSError):
            return False

    async def discard(self, key: WorkspaceKey) -> None:
        workspace = self.locate(key)
        async with self._locks.hold(key.user_id):
            try:
                await self._destroy(workspace)
            except ZfsFailure as failure:
                raise _error(f"cannot discard workspace {workspace.dataset}", failure) from failure
            except CallTimedOut as error:
                raise WorkspaceError(f"cannot discard workspace {workspace.dataset}: {error}") from error

    async def keys(self) -> tuple[WorkspaceKey, ...]:
        try:
            names = await self._datasets.filesystems(self.root, depth=2)
        except ZfsFailure as failure:
            # A root that has gone is an error, not a store without workspaces: nobody shall act on an empty answer.
            raise _error(f"cannot list the workspaces of {self.root}", failure) from failure
        return tuple(key for name in names if (key := self._layout.key(name)) is not None)

    async def _check_pool(self, what: str) -> None:
        pools = {pool.name: pool for pool in await self._datasets.pools()}
        pool = pools.get(self._layout.pool)
        if pool is None:
            raise WorkspaceError(f"{what}: {no_such_pool(self._layout.pool, pools)}")
        if not pool.usable:
            raise WorkspaceError(f"{what}: pool {pool.name} is {pool.health}; see `zpool status {pool.name}`")

    async def _make_root(self, what: str) -> None:
        wanted = str(self._layout.mount_root)
        try:
            mountpoint = await self._datasets.mountpoint(self.root)
        except ZfsFailure as failure:
            if failure.problem is not ZfsProblem.MISSING:
                raise
            for ancestor in self._layout.ancestors:
                await _unless_exists(self._datasets.create_group(ancestor))
            await _unless_exists(self._datasets.create_root(self.root, self._layout.mount_root))
            mountpoint = await self._datasets.mountpoint(self.root)
        if mountpoint != wanted:
            raise WorkspaceError(
                f"{what}: it is mounted at {mountpoint} and workspaces are expected at {wanted}; "
                f"run `zfs set mountpoint={wanted} {self.root}` while no session runs, or set workspaces.mount_root"
            )

    def _make_mount_root(self) -> None:
        directory = self._layout.mount_root
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            pass  # an operator's own choice of mode stays
        else:
            directory.chmod(_ROOT_MODE)
        untrusted = untrusted_part(directory)
        if untrusted is not None:
            raise OSError(errno.EPERM, f"{untrusted} can be changed by others than root")

    async def _make(self, workspace: Workspace, make: Callable[[], Awaitable[None]]) -> bool:
        """Make the dataset, and the user's one above it where this is the first. False when it was there already."""
        try:
            await make()
        except ZfsFailure as failure:
            if failure.problem is ZfsProblem.EXISTS:
                return False
            if failure.problem is not ZfsProblem.PARENT_MISSING:
                raise
            await _unless_exists(self._datasets.create_group(self._layout.user_dataset(workspace.key)))
            await make()
        return True

    def _settle(self, workspace: Workspace) -> None:
        """Check what is mounted at the workspace's path, and make it its owner's. Raises OSError."""
        mount = self._mounts.find(workspace.path)
        if mount is None or mount.source != workspace.dataset:
            there = "nothing" if mount is None else mount.source
            raise OSError(errno.ENODEV, f"{there} is mounted there, see `zfs get mountpoint {workspace.dataset}`")
        if not mount.harmless:
            # ZFS in user space mounts suid and dev whatever the properties say.
            self._mounts.restrict(mount)
        hand_over(workspace.path, self._owner, _WORKSPACE_MODE)

    async def _undo(self, workspace: Workspace, *, fresh: bool) -> str:
        """Destroy what this call has made; returns words for the error's message when that failed too."""
        if not fresh:
            return ""
        try:
            await self._destroy(workspace)
        except (ZfsFailure, CallTimedOut) as failure:
            return f" (and cannot remove it again: {failure})"
        return ""

    async def _destroy(self, workspace: Workspace) -> None:
        try:
            await self._patiently(lambda: self._datasets.destroy(workspace.dataset))
        except ZfsFailure as failure:
            if failure.problem is not ZfsProblem.MISSING:
                raise
        await self._blocking.run(lambda: _remove_directory(workspace.path))

    async def _patiently(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Do it, again while something is busy, as what has been unmounted just now is, for `busy_seconds`."""
        deadline = self._clock.monotonic() + self._busy_seconds
        pause = _FIRST_PAUSE
        while True:
            try:
                return await operation()
            except ZfsFailure as failure:
                if failure.problem is not ZfsProblem.BUSY or self._clock.monotonic() + pause > deadline:
                    raise
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


async def _unless_exists(creation: Awaitable[None]) -> None:
    try:
        await creation
    except ZfsFailure as failure:
        if failure.problem is not ZfsProblem.EXISTS:
            raise


def _remove_directory(path: Path) -> None:
    """The mount point itself, where ZFS has left it. Never what is in it."""
    with contextlib.suppress(OSError):
        path.rmdir()


def _error(what: str, failure: ZfsFailure) -> WorkspaceError:
    return WorkspaceError(f"{what}: {failure.advice}")


def _explain(error: OSError) -> str:
    if error.errno == errno.ENOTCONN:
        # A FUSE mount whose daemon has ended. Sessions on it are lost; only its operator knows when it may go.
        return "its ZFS daemon has ended; unmount it with `umount -l`, then run `zfs mount -a`"
    return error.strerror or str(error)
