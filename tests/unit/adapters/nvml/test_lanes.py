"""One call at a time, on threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from medforged.adapters.nvml.lanes import Lane, Stuck

pytestmark = pytest.mark.unit

LONG = 60.0
SHORT = 0.05


class Gate:
    """A call that stays inside until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.leave.wait(LONG)
        return "let go"


@pytest.fixture
def lane() -> Lane:
    return Lane("test-lane")


@asynccontextmanager
async def stuck(lane: Lane) -> AsyncIterator[Gate]:
    gate = Gate()
    with pytest.raises(Stuck):
        await lane.run(gate, timeout_seconds=SHORT)
    try:
        yield gate
    finally:
        gate.leave.set()
        await idle(lane)


async def idle(lane: Lane) -> None:
    async with asyncio.timeout(LONG):
        while True:
            if not lane.busy:
                return
            await asyncio.sleep(0.001)


def threads() -> int:
    return sum(thread.name == "test-lane" for thread in threading.enumerate())


async def test_a_result_comes_back(lane: Lane) -> None:
    assert await lane.run(lambda: 42, timeout_seconds=LONG) == 42


async def test_an_error_comes_back(lane: Lane) -> None:
    def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        await lane.run(fail, timeout_seconds=LONG)
    assert await lane.run(lambda: 1, timeout_seconds=LONG) == 1


async def test_the_event_loop_goes_on_meanwhile(lane: Lane) -> None:
    gate = Gate()
    task = asyncio.create_task(lane.run(gate, timeout_seconds=LONG))
    assert await asyncio.to_thread(gate.entered.wait, LONG)  # a blocked event loop could not come back from this
    gate.leave.set()

    assert await task == "let go"


async def test_a_call_that_does_not_come_back_is_stuck(lane: Lane) -> None:
    async with stuck(lane):
        assert lane.busy


async def test_further_calls_are_refused_at_once_and_cost_no_thread(lane: Lane) -> None:
    async with stuck(lane):
        for _ in range(5):
            with pytest.raises(Stuck, match=r"^has not answered for \d+ s$"):
                await lane.run(lambda: 1, timeout_seconds=SHORT)
        assert threads() == 1


async def test_a_lane_works_again_when_the_stuck_call_returns(lane: Lane) -> None:
    async with stuck(lane) as gate:
        gate.leave.set()
        await idle(lane)
        assert await lane.run(lambda: "again", timeout_seconds=LONG) == "again"


async def test_calls_wait_for_one_that_is_merely_slow(lane: Lane) -> None:
    inside: list[int] = []
    most = 0

    def call() -> None:
        nonlocal most
        inside.append(1)
        most = max(most, len(inside))
        time.sleep(0.02)  # long enough that two at once would meet
        inside.pop()

    await asyncio.gather(*(lane.run(call, timeout_seconds=LONG) for _ in range(4)))

    assert most == 1


async def test_a_cancelled_caller_leaves_the_lane_in_order(lane: Lane) -> None:
    gate = Gate()
    task = asyncio.create_task(lane.run(gate, timeout_seconds=LONG))
    assert await asyncio.to_thread(gate.entered.wait, LONG)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    following = asyncio.create_task(lane.run(lambda: "next", timeout_seconds=LONG))
    gate.leave.set()

    assert await following == "next"


def test_a_call_that_returns_after_the_loop_has_closed_disturbs_nobody() -> None:
    gate = Gate()

    async def leave_it_behind() -> None:
        with pytest.raises(Stuck):
            await Lane("test-lane").run(gate, timeout_seconds=SHORT)

    asyncio.run(leave_it_behind())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "test-lane"]
    gate.leave.set()
    thread.join(LONG)

    assert not thread.is_alive()


def test_a_stuck_thread_does_not_keep_the_process(lane: Lane) -> None:
    async def start() -> bool:
        return await lane.run(lambda: threading.current_thread().daemon, timeout_seconds=LONG)

    assert asyncio.run(start())
