"""Blocking calls on threads: results, errors, and what a stuck call does to the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from medforged.adapters.blocking import BlockingCalls, CallTimedOut
from tests.fakes.waiting import until

pytestmark = pytest.mark.unit


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Calls wait for it; open at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


async def test_returns_and_raises_what_the_call_does() -> None:
    calls = BlockingCalls("test", limit=1, timeout_seconds=10)
    assert await calls.run(lambda: 7) == 7

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await calls.run(fail)
    assert await calls.run(threading.get_ident) != threading.get_ident()


async def test_a_timeout_inside_the_call_is_its_own() -> None:
    def fail() -> None:
        raise TimeoutError("the call's")

    with pytest.raises(TimeoutError, match="the call's"):
        await BlockingCalls("test", limit=1, timeout_seconds=10).run(fail)


async def test_a_stuck_call_is_given_up_and_others_go_on(gate: threading.Event) -> None:
    calls = BlockingCalls("test", limit=2, timeout_seconds=0.05)
    with pytest.raises(CallTimedOut, match=r"test did not answer within 0\.05 s"):
        await calls.run(gate.wait)
    assert await calls.run(lambda: 7) == 7


async def test_stuck_calls_do_not_pile_up(gate: threading.Event) -> None:
    calls = BlockingCalls("piling", limit=2, timeout_seconds=0.05)
    ran = []
    outcomes = await asyncio.gather(*(calls.run(gate.wait) for _ in range(6)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CallTimedOut] * 6
    assert sum(thread.name == "piling" for thread in threading.enumerate()) == 2
    with pytest.raises(CallTimedOut):
        await calls.run(lambda: ran.append(1))
    gate.set()
    await until(lambda: not any(thread.name == "piling" for thread in threading.enumerate()))
    await calls.run(lambda: ran.append(2))
    assert ran == [2]


async def test_a_cancelled_caller_does_not_give_the_place_away(gate: threading.Event) -> None:
    calls = BlockingCalls("cancelled", limit=1, timeout_seconds=0.05)
    started, complaints = threading.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def wait() -> None:
        started.set()
        gate.wait()

    task = asyncio.create_task(calls.run(wait))
    await until(started.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(CallTimedOut):
        await calls.run(lambda: 7)
    gate.set()
    await until(lambda: not any(thread.name == "cancelled" for thread in threading.enumerate()))
    assert await calls.run(lambda: 7) == 7
    assert complaints == []


async def test_an_error_that_comes_after_the_timeout_is_nobodys(gate: threading.Event) -> None:
    calls = BlockingCalls("late", limit=1, timeout_seconds=0.05)

    def fail_late() -> None:
        gate.wait()
        raise ValueError("late")

    with pytest.raises(CallTimedOut):
        await calls.run(fail_late)
    gate.set()
    await until(lambda: not any(thread.name == "late" for thread in threading.enumerate()))
    assert await calls.run(lambda: 7) == 7
