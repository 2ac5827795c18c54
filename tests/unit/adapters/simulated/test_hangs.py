"""Calls that hang: whom they hold, and that they can be let go."""

from __future__ import annotations

import asyncio

import pytest

from medforged.adapters.simulated.hangs import Hangs

pytestmark = pytest.mark.unit


async def test_only_what_matches_waits_and_goes_on_when_released() -> None:
    hangs = Hangs()
    hang = hangs.add("stop", "one")
    for operation, subject in (("stop", "two"), ("start", "one")):
        await hangs.wait(operation, subject)
    stuck = [asyncio.create_task(hangs.wait("stop", "one")) for _ in range(2)]
    await hang.arrived()
    await asyncio.sleep(0)
    assert hang.waiting == 2
    assert not any(task.done() for task in stuck)
    hang.release()
    await asyncio.gather(*stuck)
    assert hang.waiting == 0
    await hangs.wait("stop", "one")


async def test_without_a_subject_all_of_an_operation_wait() -> None:
    hangs = Hangs()
    hang = hangs.add("stop", None)
    stuck = [asyncio.create_task(hangs.wait("stop", subject)) for subject in ("one", "two")]
    await hang.arrived()
    await asyncio.sleep(0)
    assert hang.waiting == 2
    hang.release()
    await asyncio.gather(*stuck)


async def test_a_call_that_is_given_up_waits_no_longer() -> None:
    hangs = Hangs()
    hang = hangs.add("stop", None)
    stuck = asyncio.create_task(hangs.wait("stop", "one"))
    await hang.arrived()
    stuck.cancel()
    await asyncio.wait({stuck})
    assert hang.waiting == 0


async def test_each_of_several_has_to_be_released() -> None:
    hangs = Hangs()
    first, second = hangs.add("stop", None), hangs.add("stop", "one")
    stuck = asyncio.create_task(hangs.wait("stop", "one"))
    await first.arrived()
    first.release()
    await second.arrived()
    assert not stuck.done()
    second.release()
    await stuck
