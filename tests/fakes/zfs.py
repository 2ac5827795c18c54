"""Owns fakes of what the ZFS store stands on: datasets in memory, and mounts that are directories of the test's own."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from medforged.adapters.zfs.layout import Layout
from medforged.adapters.zfs.listings import PoolState, SnapshotEntry
from medforged.adapters.zfs.mounts import Mount
from medforged.adapters.zfs.problems import ZfsFailure, ZfsProblem


class FakeMounts:
    """Mounts. To mount is to make the directory. `before_find` is called at each look for a mount."""

    def __init__(self, *, harmless: bool = True) -> None:
        self.mounted: dict[Path, Mount] = {}
        self.restricted: list[Path] = []
        self.error: OSError | None = None
        self.before_find: Callable[[], object] = lambda: None
        self._options = frozenset({"nosuid", "nodev"} if harmless else {"rw"})

    def find(self, path: Path) -> Mount | None:
        self.before_find()
        return self.mounted.get(path)

    def restrict(self, mount: Mount) -> None:
        self.restricted.append(mount.path)

    def mount_zfs(self, dataset: str, path: Path) -> None:
        if self.error is not None:
            raise self.error
        path.mkdir(parents=True, exist_ok=True)
        self.mounted[path] = Mount(dataset, path, self._options)


class FakeDatasets:
    """Datasets in memory, with the same refusals as ZFS. `fail` makes the next call of an operation raise."""

    def __init__(self, layout: Layout, mounts: FakeMounts, pools: Sequence[PoolState]) -> None:
        self.layout = layout
        self.mounts = mounts
        self.datasets: dict[str, dict[str, SnapshotEntry]] = {}
        self.quotas: dict[str, int | None] = {}
        self.mountpoints: dict[str, str] = {}
        self.tags: dict[str, set[str]] = {}
        self.journal: list[str] = []
        self._pools = pools
        self._failures: dict[str, deque[ZfsFailure]] = {}
        self._made = 0

    def fail(self, operation: str, *problems: ZfsProblem) -> None:
        queue = self._failures.setdefault(operation, deque())
        queue.extend(ZfsFailure(problem, f"the test lets {operation} fail") for problem in problems)

    async def pools(self) -> Sequence[PoolState]:
        await self._enter("pools")
        return self._pools

    async def mountpoint(self, name: str) -> str:
        await self._enter("mountpoint", name)
        self._need(name)
        return self.mountpoints.get(name, "none")

    async def create_root(self, name: str, mount_root: Path) -> None:
        await self._enter("create_root", name)
        self._make(name)
        self.mountpoints[name] = str(mount_root)

    async def create_group(self, name: str) -> None:
        await self._enter("create_group", name)
        self._make(name)

    async def create(self, name: str, quota_bytes: int | None) -> None:
        await self._enter("create", name)
        self._make(name)
        self.quotas[name] = quota_bytes
        try:
            self.mounts.mount_zfs(name, self.layout.mount_path(name))
        except OSError as error:
            raise ZfsFailure(ZfsProblem.MADE_NOT_MOUNTED, str(error)) from error

    async def mount(self, name: str) -> None:
        await self._enter("mount", name)
        self._need(name)
        self.mounts.mount_zfs(name, self.layout.mount_path(name))

    async def exists(self, name: str) -> bool:
        await self._enter("exists", name)
        return name in self.datasets

    async def snapshot(self, name: str, snapshot: str) -> None:
        await self._enter("snapshot", name)
        self._need(name)
        if snapshot in self.datasets[name]:
            raise ZfsFailure(ZfsProblem.EXISTS, "dataset already exists")
        self._made += 1
        self.datasets[name][snapshot] = SnapshotEntry.made(snapshot, 1_771_304_304, self._made)

    async def snapshots(self, name: str) -> Sequence[SnapshotEntry]:
        await self._enter("snapshots", name)
        self._need(name)
        return list(self.datasets[name].values())

    async def clone(self, name: str, snapshot: str, target: str, quota_bytes: int | None) -> None:
        await self._enter("clone", target)
        self._need_snapshot(name, snapshot)
        self._make(target)
        self.quotas[target] = quota_bytes
        try:
            self.mounts.mount_zfs(target, self.layout.mount_path(target))
        except OSError as error:
            raise ZfsFailure(ZfsProblem.MADE_NOT_MOUNTED, str(error)) from error

    async def roll_back(self, name: str, snapshot: str) -> None:
        await self._enter("roll_back", name)
        self._need_snapshot(name, snapshot)
        if list(self.datasets[name])[-1] != snapshot:
            raise ZfsFailure(ZfsProblem.NOT_NEWEST, "more recent snapshots exist")

    async def hold(self, name: str, snapshot: str, tag: str) -> None:
        await self._enter("hold", name)
        self._need_snapshot(name, snapshot)
        tags = self.tags.setdefault(f"{name}@{snapshot}", set())
        if tag in tags:
            raise ZfsFailure(ZfsProblem.EXISTS, "tag already exists on this dataset")
        tags.add(tag)

    async def release(self, name: str, snapshot: str, tag: str) -> None:
        await self._enter("release", name)
        tags = self.tags.get(f"{name}@{snapshot}", set())
        if tag not in tags:
            raise ZfsFailure(ZfsProblem.MISSING, "no such tag on this dataset")
        tags.remove(tag)

    async def destroy(self, name: str) -> None:
        await self._enter("destroy", name)
        self._need(name)
        if self.datasets[name] or any(other.startswith(f"{name}/") for other in self.datasets):
            raise ZfsFailure(ZfsProblem.HAS_CHILDREN, "filesystem has children")
        del self.datasets[name]
        self.mounts.mounted.pop(self.layout.mount_path(name), None)

    async def filesystems(self, root: str, depth: int) -> Sequence[str]:
        await self._enter("filesystems", root)
        self._need(root)
        below = [name for name in self.datasets if name.startswith(f"{root}/")]
        return [root, *(name for name in below if name.removeprefix(root).count("/") <= depth)]

    def _make(self, name: str) -> None:
        if name in self.datasets:
            raise ZfsFailure(ZfsProblem.EXISTS, "dataset already exists")
        parent = name.rpartition("/")[0]
        if "/" in parent and parent not in self.datasets:
            raise ZfsFailure(ZfsProblem.PARENT_MISSING, "parent does not exist")
        self.datasets[name] = {}

    def _need(self, name: str) -> None:
        if name not in self.datasets:
            raise ZfsFailure(ZfsProblem.MISSING, "dataset does not exist")

    def _need_snapshot(self, name: str, snapshot: str) -> None:
        if snapshot not in self.datasets.get(name, {}):
            raise ZfsFailure(ZfsProblem.MISSING, "dataset does not exist")

    async def _enter(self, operation: str, name: str = "") -> None:
        self.journal.append(f"{operation} {name}".rstrip())
        await asyncio.sleep(0)
        planned = self._failures.get(operation)
        if planned:
            raise planned.popleft()


def not_empty() -> OSError:
    return OSError(errno.ENOTEMPTY, "Directory not empty")
