"""Owns the `processes` port over procfs: which processes may belong to a container, by their control groups."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from pathlib import Path

from medforged.adapters.blocking import BlockingCalls, CallTimedOut
from medforged.adapters.procfs.membership import is_elsewhere

__all__ = ["ProcfsProcessTable"]

_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
# The host's own namespaces have fixed numbers (PROC_PID_INIT_INO, PROC_CGROUP_INIT_INO; include/linux/proc_ns.h).
_OF_THE_HOST = {"pid": "pid:[4026531836]", "cgroup": "cgroup:[4026531835]"}
_THREADS = 2


class ProcfsProcessTable:
    """ProcessTable over `/proc` (`root`), which never raises: what cannot be read proves nothing, so it counts.

    Nothing is proven either while the daemon itself is in a container: in a process namespace of its own, the driver's
    process ids are not those of its `/proc`; in a control group namespace of its own, paths do not begin at the host's
    root.
    """

    def __init__(self, root: Path = Path("/proc"), *, timeout_seconds: float = 2.0) -> None:
        self._root = root
        self._calls = BlockingCalls("procfs", limit=_THREADS, timeout_seconds=timeout_seconds)

    async def of_container(self, process_ids: Collection[int], container_id: str | None) -> tuple[int, ...]:
        every = tuple(sorted(set(process_ids)))
        if not every or container_id is None or not _CONTAINER_ID.fullmatch(container_id):
            return every
        elsewhere: frozenset[int] = frozenset()
        # RuntimeError: the host has no thread left.
        with contextlib.suppress(CallTimedOut, RuntimeError):
            elsewhere = await self._calls.run(lambda: self._elsewhere(every, container_id))
        return tuple(process_id for process_id in every if process_id not in elsewhere)

    def _elsewhere(self, process_ids: Collection[int], container_id: str) -> frozenset[int]:
        if not self._sees_the_host():
            return frozenset()
        return frozenset(each for each in process_ids if is_elsewhere(self._groups(each), container_id))

    def _sees_the_host(self) -> bool:
        try:
            return all(
                str((self._root / "self" / "ns" / kind).readlink()) == name for kind, name in _OF_THE_HOST.items()
            )
        except OSError:
            return False

    def _groups(self, process_id: int) -> str:
        """Empty when the process is gone, or its groups cannot be read."""
        try:
            return (self._root / str(process_id) / "cgroup").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
