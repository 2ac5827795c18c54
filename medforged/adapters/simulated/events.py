"""Owns what a simulated container engine tells of itself: events from changes of its items, and the stream of them."""

from __future__ import annotations

from collections import deque

from medforged.adapters.simulated.host import Watch
from medforged.adapters.simulated.items import ContainerItem
from medforged.domain.containers import ContainerEvent, ContainerEventKind, ContainerState
from medforged.domain.errors import ContainerUnavailable

__all__ = ["EventStream", "events_between"]


def events_between(before: ContainerItem | None, after: ContainerItem | None) -> list[ContainerEvent]:
    """What an engine would have told while a container changed so, came to be or vanished; often nothing."""
    before, after = _own(before), _own(after)
    if before is not None and after is not None and before.id != after.id:
        return [*events_between(before, None), *events_between(None, after)]
    container = after or before
    if container is None:
        return []
    ran, runs = _runs(before), _runs(after)
    again = ran and runs and before is not None and after is not None and before.process_id != after.process_id
    kinds = []
    if ran and (again or not runs):
        if after is not None and after.oom_killed:
            kinds.append(ContainerEventKind.OOM)
        kinds.append(ContainerEventKind.DIE)
    if runs and (again or not ran):
        kinds.append(ContainerEventKind.START)
    if after is None:
        kinds.append(ContainerEventKind.DESTROY)
    return [ContainerEvent(kind, container.name, container.session_id) for kind in kinds]


class EventStream:
    """The events of one subscription, as an asynchronous iterator; raises ContainerUnavailable once it was ended."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._events: deque[ContainerEvent] = deque()
        self._lost: str | None = None

    def tell(self, event: ContainerEvent) -> None:
        if self._lost is None:
            self._events.append(event)
            self._watch.notify()

    def end(self, reason: str) -> None:
        """Let it end once what was told before has been read."""
        self._lost = self._lost or reason
        self._watch.notify()

    def close(self) -> None:
        self._watch.close()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> ContainerEvent:
        while not self._events:
            if self._lost is not None:
                raise ContainerUnavailable(f"cannot follow the containers: {self._lost}")
            await self._watch.wait()
        return self._events.popleft()


def _own(item: ContainerItem | None) -> ContainerItem | None:
    return None if item is None or item.foreign else item


def _runs(item: ContainerItem | None) -> bool:
    return item is not None and item.state is ContainerState.RUNNING
