"""Owns the tests of the threads on which blocking calls run: lanes, limits, and calls that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from medforged.adapters.docker.calls import BlockingCalls, CallsClosed

pytestmark = pytest.mark.unit


class Blocked:
    """Work that a test lets begin and end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.release.wait(30)
        return "done"


@pytest.fixture
async def calls() -> AsyncIterator[BlockingCalls]:
    calls = BlockingCalls("test", threads=2, waiting_threads=2)
    yield calls
    await calls.close(5)


async def begun(blocked: Blocked) -> None:
    assert await asyncio.to_thread(blocked.begun.wait, 30)


async def test_result_and_exception_come_back(calls: BlockingCalls) -> None:
    assert await calls.run("a", lambda: 1, timeout_seconds=5) == 1
    with pytest.raises(ZeroDivisionError):
        await calls.run("a", lambda: 1 / 0, timeout_seconds=5)


async def test_calls_of_one_lane_follow_each_other(calls: BlockingCalls) -> None:
    first, order = Blocked(), list[str]()
    waiting = asyncio.create_task(calls.run("a", first, timeout_seconds=30))
    await begun(first)
    second = asyncio.create_task(calls.run("a", lambda: order.append("second"), timeout_seconds=30))
    third = asyncio.create_task(calls.run("a", lambda: order.append("third"), timeout_seconds=30))

    await calls.run("b", lambda: order.append("other lane"), timeout_seconds=30)
    first.release.set()
    await asyncio.gather(waiting, second, third)

    assert order == ["other lane", "second", "third"]


async def test_hung_lane_holds_one_thread_however_often_it_is_called(calls: BlockingCalls) -> None:
    hung = Blocked()
    waiting = asyncio.create_task(calls.run("a", hung, timeout_seconds=30))
    await begun(hung)
    more = [asyncio.create_task(calls.run("a", lambda: None, timeout_seconds=30)) for _ in range(20)]

    assert await calls.run("b", lambda: "free", timeout_seconds=30) == "free"

    hung.release.set()
    await asyncio.gather(waiting, *more)


async def test_waiting_calls_leave_the_threads_of_others_alone(calls: BlockingCalls) -> None:
    stops = [Blocked() for _ in range(2)]
    waiting = [
        asyncio.create_task(calls.run(f"stop {number}", stop, timeout_seconds=30, waits=True))
        for number, stop in enumerate(stops)
    ]
    for stop in stops:
        await begun(stop)

    assert await calls.run("b", lambda: "free", timeout_seconds=30) == "free"

    for stop in stops:
        stop.release.set()
    await asyncio.gather(*waiting)


async def test_timeout_comes_while_the_thread_is_still_inside(calls: BlockingCalls) -> None:
    hung = Blocked()

    with pytest.raises(TimeoutError):
        await calls.run("a", hung, timeout_seconds=0.02)

    assert hung.begun.is_set()
    hung.release.set()


async def test_lane_stays_occupied_until_the_thread_has_returned(calls: BlockingCalls) -> None:
    creation, order = Blocked(), list[str]()

    def create() -> None:
        creation()
        order.append("created")

    task = asyncio.create_task(calls.run("a", create, timeout_seconds=30))
    await begun(creation)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    removal = asyncio.create_task(calls.run("a", lambda: order.append("removed"), timeout_seconds=30))
    await calls.run("b", lambda: None, timeout_seconds=30)
    assert order == []

    creation.release.set()
    await removal

    assert order == ["created", "removed"]


async def test_call_that_was_given_up_before_its_turn_never_runs(calls: BlockingCalls) -> None:
    hung, ran = Blocked(), list[str]()
    waiting = asyncio.create_task(calls.run("a", hung, timeout_seconds=30))
    await begun(hung)
    with pytest.raises(TimeoutError):
        await calls.run("a", lambda: ran.append("timed out"), timeout_seconds=0.02)
    cancelled = asyncio.create_task(calls.run("a", lambda: ran.append("cancelled"), timeout_seconds=30))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled

    hung.release.set()
    await waiting
    await calls.run("a", lambda: ran.append("later"), timeout_seconds=30)

    assert ran == ["later"]


async def test_failure_that_nobody_waits_for_is_no_warning(calls: BlockingCalls) -> None:
    blocked = Blocked()

    def fail() -> None:
        blocked()
        raise ValueError("nobody hears this")

    task = asyncio.create_task(calls.run("a", fail, timeout_seconds=30))
    await begun(blocked)
    task.cancel()
    blocked.release.set()

    await calls.run("a", lambda: None, timeout_seconds=30)  # after it, in the same lane


async def test_closed_pool_refuses(calls: BlockingCalls) -> None:
    hung = Blocked()
    waiting = asyncio.create_task(calls.run("a", hung, timeout_seconds=30))
    await begun(hung)
    queued = asyncio.create_task(calls.run("a", lambda: None, timeout_seconds=30))
    await asyncio.sleep(0)

    closing = asyncio.create_task(calls.close(30))
    await asyncio.sleep(0)
    with pytest.raises(CallsClosed):
        await calls.run("b", lambda: None, timeout_seconds=30)
    hung.release.set()

    assert await waiting == "done"
    with pytest.raises(CallsClosed):
        await queued
    await closing


async def test_call_that_waits_for_a_thread_when_the_pool_is_closed_never_runs() -> None:
    calls = BlockingCalls("test", threads=1, waiting_threads=1)
    hung, ran = Blocked(), list[str]()
    waiting = asyncio.create_task(calls.run("a", hung, timeout_seconds=30))
    await begun(hung)
    queued = asyncio.create_task(calls.run("b", lambda: ran.append("ran"), timeout_seconds=30))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    closing = asyncio.create_task(calls.close(30))
    with pytest.raises(CallsClosed):
        await queued
    hung.release.set()
    await asyncio.gather(waiting, closing)

    assert ran == []
