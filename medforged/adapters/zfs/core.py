"""Owns doing things to datasets through libzfs_core (Debian's python3-pyzfs) and mount(2): OpenZFS in the kernel.

What happens at every session's start and end takes no process: creating, mounting, snapshots, listing. What is
rare (the root, destroying with its unmounting, mounting what was there already) goes through the `zfs` command.

libzfs_core cannot read properties; a read-only channel program (zfs-program(8)) can, in one call for all rows.
Property values have the kernel's own form here: numbers for sizes and for `off`, bytes for strings.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from medforged.adapters.blocking import BlockingCalls, CallTimedOut
from medforged.adapters.zfs.commands import CommandDatasets
from medforged.adapters.zfs.layout import Layout
from medforged.adapters.zfs.listings import PoolState, SnapshotEntry
from medforged.adapters.zfs.mounts import Mounts
from medforged.adapters.zfs.problems import ZfsFailure, ZfsProblem

__all__ = ["CoreDatasets", "LibZfsCore"]

T = TypeVar("T")

_CONCURRENCY = 8
# Bytes that a program and its answer may take: some 100 of them a name, so enough for 100,000 workspaces.
_MEMORY_LIMIT = 32 * 1024 * 1024
_INSTRUCTION_LIMIT = 100_000_000  # the most that the kernel allows; 20 or so are used a row

# All take a dataset as argv[1] and return a table whose keys are names: an answer is a dictionary. `zfs.exists`
# comes first because listing what does not exist ends a program with an error that has no code of its own.
_EXISTS = b"""
args = ...
answer = {}
if not zfs.exists(args["argv"][1]) then
    answer["missing"] = true
    return answer
end
answer["found"] = {}
return answer
"""
_SNAPSHOTS = b"""
args = ...
dataset = args["argv"][1]
answer = {}
if not zfs.exists(dataset) then
    answer["missing"] = true
    return answer
end
found = {}
for snapshot in zfs.list.snapshots(dataset) do
    row = {}
    row["creation"] = zfs.get_prop(snapshot, "creation")
    row["createtxg"] = zfs.get_prop(snapshot, "createtxg")
    found[snapshot] = row
end
answer["found"] = found
return answer
"""
_FILESYSTEMS = b"""
args = ...
root = args["argv"][1]
depth = tonumber(args["argv"][2])
answer = {}
if not zfs.exists(root) then
    answer["missing"] = true
    return answer
end
found = {}
function visit(dataset, left)
    if zfs.get_prop(dataset, "type") == "filesystem" then
        found[dataset] = true
        if left > 0 then
            for child in zfs.list.children(dataset) do
                visit(child, left - 1)
            end
        end
    end
end
visit(root, depth)
answer["found"] = found
return answer
"""

_PROBLEMS = {
    errno.EEXIST: ZfsProblem.EXISTS,
    errno.ENOENT: ZfsProblem.MISSING,
    errno.EBUSY: ZfsProblem.BUSY,
    errno.EAGAIN: ZfsProblem.SUSPENDED,
    errno.ENOSPC: ZfsProblem.NO_SPACE,
    errno.EDQUOT: ZfsProblem.NO_SPACE,
    errno.EINVAL: ZfsProblem.BAD_PROPERTY,
    errno.ERANGE: ZfsProblem.BAD_PROPERTY,
    errno.ENAMETOOLONG: ZfsProblem.NAME_TOO_LONG,
    errno.EROFS: ZfsProblem.READ_ONLY,
    errno.EPERM: ZfsProblem.DENIED,
    errno.EACCES: ZfsProblem.DENIED,
    errno.ENXIO: ZfsProblem.UNREACHABLE,
}


class LibZfsCore(Protocol):
    """What is used of the module `libzfs_core`. Names are bytes; its errors have an `errno`."""

    @property
    def exceptions(self) -> Any: ...

    def lzc_create(self, name: bytes, ds_type: str = ..., props: Mapping[bytes, int | bytes] | None = ...) -> None: ...

    def lzc_exists(self, name: bytes) -> bool: ...

    def lzc_snapshot(self, snaps: Sequence[bytes]) -> None: ...

    def lzc_clone(self, name: bytes, origin: bytes, props: Mapping[bytes, int | bytes] | None = ...) -> None: ...

    def lzc_rollback_to(self, name: bytes, snap: bytes) -> None: ...

    def lzc_hold(self, holds: Mapping[bytes, bytes], fd: int | None = ...) -> Sequence[bytes]: ...

    def lzc_release(self, holds: Mapping[bytes, Sequence[bytes]]) -> Sequence[bytes]: ...

    def lzc_channel_program_nosync(
        self,
        poolname: bytes,
        program: bytes,
        instrlimit: int = ...,
        memlimit: int = ...,
        params: Sequence[bytes] | None = ...,
    ) -> Mapping[bytes, Any]: ...


class CoreDatasets:
    """Datasets through libzfs_core, with `commands` for what is left."""

    def __init__(
        self,
        layout: Layout,
        library: LibZfsCore,
        commands: CommandDatasets,
        mounts: Mounts,
        *,
        timeout_seconds: float = 30.0,
    ) -> None:
        self._layout = layout
        self._library = library
        self._commands = commands
        self._mounts = mounts
        self._blocking = BlockingCalls("libzfs_core", limit=_CONCURRENCY, timeout_seconds=timeout_seconds)

    async def pools(self) -> Sequence[PoolState]:
        return await self._commands.pools()

    async def mountpoint(self, name: str) -> str:
        return await self._commands.mountpoint(name)

    async def create_root(self, name: str, mount_root: Path) -> None:
        await self._commands.create_root(name, mount_root)

    async def create_group(self, name: str) -> None:
        await self._create(name, {b"canmount": 0})

    async def create(self, name: str, quota_bytes: int | None) -> None:
        await self._create(name, _quota(quota_bytes))
        await self._mount_made(name)

    async def mount(self, name: str) -> None:
        await self._commands.mount(name)

    async def exists(self, name: str) -> bool:
        # Not lzc_exists: it says no to every error, and in a suspended pool no workspace would exist.
        try:
            await self._program(_EXISTS, name)
        except ZfsFailure as failure:
            if failure.problem is ZfsProblem.MISSING:
                return False
            raise
        return True

    async def snapshot(self, name: str, snapshot: str) -> None:
        full_name = f"{name}@{snapshot}"
        await self._call(lambda: self._library.lzc_snapshot([full_name.encode()]))

    async def snapshots(self, name: str) -> Sequence[SnapshotEntry]:
        found = await self._program(_SNAPSHOTS, name)
        entries = [
            SnapshotEntry.made(full_name.partition(b"@")[2].decode(), row[b"creation"], row[b"createtxg"])
            for full_name, row in found.items()
        ]
        return sorted(entries, key=lambda entry: (entry.transaction_group, entry.name))

    async def clone(self, name: str, snapshot: str, target: str, quota_bytes: int | None) -> None:
        origin = f"{name}@{snapshot}"
        try:
            await self._call(
                lambda: self._library.lzc_clone(target.encode(), origin.encode(), props=_quota(quota_bytes))
            )
        except ZfsFailure as failure:
            # ENOENT is about the snapshot or about the dataset above the target, and does not say which.
            if failure.problem is ZfsProblem.MISSING and await self._has(name, snapshot):
                raise ZfsFailure(ZfsProblem.PARENT_MISSING, failure.said) from failure
            raise
        await self._mount_made(target)

    async def roll_back(self, name: str, snapshot: str) -> None:
        full_name = f"{name}@{snapshot}"
        try:
            await self._call(lambda: self._library.lzc_rollback_to(name.encode(), full_name.encode()))
        except ZfsFailure as failure:
            if failure.problem is ZfsProblem.EXISTS:  # EEXIST of a rollback is about snapshots that are newer
                raise ZfsFailure(ZfsProblem.NOT_NEWEST, f"{full_name} is not the newest snapshot") from failure
            raise

    async def hold(self, name: str, snapshot: str, tag: str) -> None:
        full_name = f"{name}@{snapshot}"
        # Without a descriptor: a hold that ends with the daemon's process would keep nothing.
        absent = await self._call(lambda: self._library.lzc_hold({full_name.encode(): tag.encode()}))
        if absent:
            raise ZfsFailure(ZfsProblem.MISSING, f"there is no snapshot {full_name}")

    async def release(self, name: str, snapshot: str, tag: str) -> None:
        full_name = f"{name}@{snapshot}"
        absent = await self._call(lambda: self._library.lzc_release({full_name.encode(): [tag.encode()]}))
        if absent:
            raise ZfsFailure(ZfsProblem.MISSING, f"there is no hold {tag} of {full_name}")

    async def destroy(self, name: str) -> None:
        # The command unmounts first, and tells `has children` from `busy`: lzc_destroy says EBUSY for snapshots too.
        await self._commands.destroy(name)

    async def filesystems(self, root: str, depth: int) -> Sequence[str]:
        return sorted(name.decode() for name in await self._program(_FILESYSTEMS, root, str(depth)))

    async def _has(self, name: str, snapshot: str) -> bool:
        try:
            return any(entry.name == snapshot for entry in await self.snapshots(name))
        except ZfsFailure:
            return False

    async def _mount_made(self, name: str) -> None:
        """Mount what this call has just made. Raises MADE_NOT_MOUNTED."""
        path = self._layout.mount_path(name)
        try:
            await self._blocking.run(lambda: self._mounts.mount_zfs(name, path))
        except (OSError, CallTimedOut) as error:
            # The caller destroys it again; libzfs_core itself never looks whether a dataset is mounted.
            raise ZfsFailure(ZfsProblem.MADE_NOT_MOUNTED, f"cannot mount it at {path}: {error}") from error

    async def _create(self, name: str, properties: Mapping[bytes, int | bytes]) -> None:
        try:
            await self._call(lambda: self._library.lzc_create(name.encode(), "zfs", props=dict(properties)))
        except ZfsFailure as failure:
            if failure.problem is ZfsProblem.MISSING:  # ENOENT of a creation is about the dataset above
                raise ZfsFailure(ZfsProblem.PARENT_MISSING, failure.said) from failure
            raise

    async def _program(self, program: bytes, *arguments: str) -> Mapping[bytes, Any]:
        """Run a read-only channel program whose first argument is a dataset, and return what it found."""
        answer = await self._call(
            lambda: self._library.lzc_channel_program_nosync(
                self._layout.pool.encode(),
                program,
                instrlimit=_INSTRUCTION_LIMIT,
                memlimit=_MEMORY_LIMIT,
                params=[argument.encode() for argument in arguments],
            ),
        )
        if b"missing" in answer:
            raise ZfsFailure(ZfsProblem.MISSING, f"there is no dataset {arguments[0]}")
        found: Mapping[bytes, Any] = answer[b"found"]
        return found

    async def _call(self, call: Callable[[], T]) -> T:
        """Call the library on a thread. Raises ZfsFailure."""
        try:
            return await self._blocking.run(call)
        except self._library.exceptions.ZFSError as error:
            # A snapshot's error holds one for each name, and there is one name.
            cause = getattr(error, "errors", [error])[0]
            said = f"libzfs_core: {cause.message or error} (errno {cause.errno})"
            raise ZfsFailure(_PROBLEMS.get(cause.errno, ZfsProblem.OTHER), said) from error
        except OverflowError as error:  # a size of more than 64 bits, refused on the way to C
            raise ZfsFailure(ZfsProblem.BAD_PROPERTY, f"libzfs_core: {error}") from error
        except CallTimedOut as error:
            raise ZfsFailure(ZfsProblem.STUCK, str(error)) from error


def _quota(quota_bytes: int | None) -> dict[bytes, int | bytes]:
    return {} if quota_bytes is None else {b"refquota": quota_bytes}
