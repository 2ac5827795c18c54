"""Owns doing things to datasets with the `zfs` and `zpool` commands: zfs-fuse 0.7 and OpenZFS 2.x.

Each operation is one command, because each costs about as much as what it does. What the two versions do not
have in common is avoided: `zfs list -p` (so times come from `zfs get -p`), several properties in one `zfs set`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from medforged.adapters.process import CommandFailed, CommandMissing, CommandTimedOut, Run, run
from medforged.adapters.zfs.listings import PoolState, SnapshotEntry, rows, snapshot_entries
from medforged.adapters.zfs.messages import classify
from medforged.adapters.zfs.problems import ZfsFailure, ZfsProblem

__all__ = ["CommandDatasets"]

_CONCURRENCY = 8

# A pipe inside zfs-fuse 0.7 carries one message per mount, written in several pieces without a lock: two mounts at once
# can mix them, and from then on no command ever returns (three concurrent loops of `zfs create` are enough, within
# seconds). So what changes a pool takes turns, over all processes of the host, since the daemon is the host's. ZFS
# writes changes out one after the other anyway; listings and file access need no turn. With -F the command itself
# holds the lock, so that killing it frees the lock.
_TURNS = ("flock", "-F", "/run/medforge-zfs-fuse.lock")

# What workspaces inherit. Set once on the root: each property given at a creation costs as much as a tenth of it.
#   setuid, devices: what a tenant makes must mean nothing on the host. exec: people run what they build.
#   atime: reading would otherwise write, and make every snapshot differ.
_INHERITED = (("setuid", "off"), ("devices", "off"), ("exec", "on"), ("atime", "off"))


class CommandDatasets:
    """Datasets through the commands. `zfs` and `zpool` are the argument lists that start them.

    `in_turns`, for ZFS in user space, lets one command at a time change something.
    """

    def __init__(
        self,
        *,
        timeout_seconds: float = 30.0,
        in_turns: bool = False,
        run: Run = run,
        zfs: Sequence[str] = ("zfs",),
        zpool: Sequence[str] = ("zpool",),
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._run = run
        self._zfs = tuple(zfs)
        self._zpool = tuple(zpool)
        self._turns = _TURNS if in_turns else ()
        self._reads = asyncio.Semaphore(_CONCURRENCY)
        self._changes = asyncio.Semaphore(1 if in_turns else _CONCURRENCY)

    async def pools(self) -> Sequence[PoolState]:
        table = rows(await self._read(self._zpool, "list", "-H", "-o", "name,health"))
        return [PoolState(name, health) for name, health in table]

    async def mountpoint(self, name: str) -> str:
        return (await self._read(self._zfs, "get", "-H", "-o", "value", "mountpoint", name)).strip()

    async def create_root(self, name: str, mount_root: Path) -> None:
        properties = (("canmount", "off"), ("mountpoint", str(mount_root)), *_INHERITED)
        await self._change("create", *_options(properties), name)

    async def create_group(self, name: str) -> None:
        await self._change("create", *_options((("canmount", "off"),)), name)

    async def create(self, name: str, quota_bytes: int | None) -> None:
        # refquota, not quota: it limits what the person has in the workspace now. With quota, snapshots, which
        # the person neither makes nor can delete, would use it up, and deleting files would free nothing.
        properties = () if quota_bytes is None else (("refquota", str(quota_bytes)),)
        await self._change("create", *_options(properties), name)

    async def mount(self, name: str) -> None:
        await self._change("mount", name)

    async def exists(self, name: str) -> bool:
        try:
            return bool(await self._read(self._zfs, "list", "-H", "-o", "name", "-t", "filesystem", name))
        except ZfsFailure as failure:
            if failure.problem is ZfsProblem.MISSING:
                return False
            raise

    async def snapshot(self, name: str, snapshot: str) -> None:
        await self._change("snapshot", f"{name}@{snapshot}")

    async def snapshots(self, name: str) -> Sequence[SnapshotEntry]:
        columns = ("-o", "name,property,value", "creation,createtxg")
        return snapshot_entries(name, _three(await self._read(self._zfs, "get", "-rHp", "-d", "1", *columns, name)))

    async def clone(self, name: str, snapshot: str, target: str, quota_bytes: int | None) -> None:
        properties = () if quota_bytes is None else (("refquota", str(quota_bytes)),)
        await self._change("clone", *_options(properties), f"{name}@{snapshot}", target)

    async def roll_back(self, name: str, snapshot: str) -> None:
        # Without -r: ZFS itself refuses where later snapshots would be lost.
        try:
            await self._change("rollback", f"{name}@{snapshot}")
        except ZfsFailure as failure:
            if failure.problem is ZfsProblem.NOT_NEWEST:  # its own message advises to force it, and lose them
                raise ZfsFailure(failure.problem, f"{name}@{snapshot} is not the newest snapshot") from failure
            raise

    async def hold(self, name: str, snapshot: str, tag: str) -> None:
        await self._change("hold", tag, f"{name}@{snapshot}")

    async def release(self, name: str, snapshot: str, tag: str) -> None:
        await self._change("release", tag, f"{name}@{snapshot}")

    async def destroy(self, name: str) -> None:
        # Without -r: ZFS itself refuses where there are snapshots or children, so no check can be outrun.
        await self._change("destroy", name)

    async def filesystems(self, root: str, depth: int) -> Sequence[str]:
        listing = await self._read(self._zfs, "list", "-rH", "-d", str(depth), "-t", "filesystem", "-o", "name", root)
        return [name for (name,) in rows(listing)]

    async def _change(self, *arguments: str) -> None:
        async with self._place(self._changes, arguments[0]):
            await self._call((*self._turns, *self._zfs), *arguments)

    async def _read(self, program: tuple[str, ...], *arguments: str) -> str:
        async with self._place(self._reads, arguments[0]):
            return await self._call(program, *arguments)

    @asynccontextmanager
    async def _place(self, places: asyncio.Semaphore, what: str) -> AsyncIterator[None]:
        """Wait for one of the places, no longer than for a command itself. Raises ZfsFailure."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await places.acquire()
        except TimeoutError as error:
            raise ZfsFailure(
                ZfsProblem.STUCK, f"`zfs {what}` did not get its turn within {self._timeout_seconds:g} s"
            ) from error
        try:
            yield
        finally:
            places.release()

    async def _call(self, program: tuple[str, ...], *arguments: str) -> str:
        """Run one command and return what it printed. Raises ZfsFailure."""
        try:
            return (await self._run((*program, *arguments), timeout_seconds=self._timeout_seconds)).stdout
        except CommandMissing as error:
            raise ZfsFailure(ZfsProblem.NOT_INSTALLED, f"the {program[0]} command {error.reason}") from error
        except CommandTimedOut as error:
            raise ZfsFailure(ZfsProblem.STUCK, f"`{program[-1]} {arguments[0]}` {error.reason}") from error
        except CommandFailed as error:
            # OpenZFS adds its usage to some errors that have nothing to do with it.
            message, _, _ = (error.stderr or error.stdout).partition("\nusage:")
            said = " ".join(message.split()) or error.reason
            raise ZfsFailure(classify(said), said) from error


def _options(properties: Sequence[tuple[str, str]]) -> list[str]:
    return [argument for name, value in properties for argument in ("-o", f"{name}={value}")]


def _three(listing: str) -> list[tuple[str, ...]]:
    return [row for row in rows(listing) if len(row) == len(("name", "property", "value"))]
