"""Owns the fake of the `processes` port: a table of which process is in which container."""

from __future__ import annotations

from collections.abc import Collection


class FakeProcessTable:
    """ProcessTable whose state is its attribute; set it at any time."""

    def __init__(self) -> None:
        self.containers: dict[int, str | None] = {}
        """The container's id by process id; None: in no container. Of a process that is missing nothing can be read."""

    async def of_container(self, process_ids: Collection[int], container_id: str | None) -> tuple[int, ...]:
        every = sorted(set(process_ids))
        if container_id is None:
            return tuple(every)
        return tuple(each for each in every if self.containers.get(each, container_id) == container_id)
