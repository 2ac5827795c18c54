"""Owns what the daemon needs to know of the host's processes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

__all__ = ["ProcessTable"]


class ProcessTable(Protocol):
    """Tells whose the processes are that a GPU's driver lists."""

    async def of_container(self, process_ids: Collection[int], container_id: str | None) -> tuple[int, ...]:
        """Those of the processes that may belong to this container, in ascending order.

        That is every one but those that are known to belong elsewhere: a process of which nothing can be read counts
        as the container's, since nobody can say that it is not. Without a container's id all of them count.
        """
        ...
