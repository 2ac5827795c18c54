"""What a simulated engine tells of a container that has become another."""

from __future__ import annotations

from uuid import UUID

import pytest
from msgspec.structs import replace

from medforged.adapters.simulated.events import EventStream, events_between
from medforged.adapters.simulated.host import Watch
from medforged.adapters.simulated.items import ContainerItem
from medforged.domain.containers import ContainerEvent, ContainerEventKind, ContainerState
from medforged.domain.errors import ContainerUnavailable

pytestmark = pytest.mark.unit

SESSION = UUID("3f11c804-0cb8-4d14-90c4-0664968d81c6")
CREATED = ContainerItem(name="one", id="1", session_id=SESSION)
RUNNING = replace(CREATED, state=ContainerState.RUNNING, process_id=10, address="10.0.0.2")
DEAD = replace(CREATED, state=ContainerState.EXITED, exit_code=1)
FOREIGN = replace(RUNNING, foreign=True)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, None, []),
        (None, CREATED, []),
        (CREATED, CREATED, []),
        (RUNNING, RUNNING, []),
        (RUNNING, replace(RUNNING, output=("said\n",), dies_after_looks=3), []),
        (CREATED, RUNNING, ["start"]),
        (DEAD, RUNNING, ["start"]),
        (None, RUNNING, ["start"]),
        (RUNNING, DEAD, ["die"]),
        (RUNNING, replace(DEAD, oom_killed=True), ["oom", "die"]),
        (RUNNING, replace(RUNNING, state=ContainerState.UNKNOWN), ["die"]),
        (DEAD, replace(DEAD, oom_killed=True), []),
        (RUNNING, None, ["die", "destroy"]),
        (DEAD, None, ["destroy"]),
        (CREATED, None, ["destroy"]),
        (RUNNING, replace(RUNNING, process_id=11), ["die", "start"]),
        (RUNNING, replace(RUNNING, id="2", process_id=11), ["die", "destroy", "start"]),
        (DEAD, replace(CREATED, id="2"), ["destroy"]),
        (FOREIGN, None, []),
        (None, FOREIGN, []),
        (RUNNING, FOREIGN, ["die", "destroy"]),
    ],
)
def test_what_is_told(before: ContainerItem | None, after: ContainerItem | None, told: list[str]) -> None:
    assert events_between(before, after) == [ContainerEvent(ContainerEventKind(kind), "one", SESSION) for kind in told]


async def test_a_stream_that_ended_gives_what_was_told_before_and_nothing_since() -> None:
    stream = EventStream(Watch())
    event = ContainerEvent(ContainerEventKind.DIE, "one", SESSION)
    stream.tell(event)
    stream.end("the engine is gone")
    stream.tell(event)
    stream.end("and again")
    assert await anext(stream) == event
    for _ in range(2):
        with pytest.raises(ContainerUnavailable, match="cannot follow the containers: the engine is gone"):
            await anext(stream)
