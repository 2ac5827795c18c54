"""Recurring work goes on whatever happens, and complains once."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from facade.background import every

pytestmark = pytest.mark.unit


async def test_it_goes_on_after_failures_and_complains_once() -> None:
    done = asyncio.Event()
    outcomes = iter([OSError("a"), OSError("b"), None, OSError("c")])

    async def work() -> None:
        outcome = next(outcomes, "over")
        if outcome == "over":
            done.set()
        elif isinstance(outcome, OSError):
            raise outcome

    with capture_logs() as logs:
        task = asyncio.create_task(every(0, "work", work))
        await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [entry["reason"] for entry in logs] == ["OSError: a", "OSError: c"]


async def test_what_has_begun_is_done_before_it_ends() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    done = []

    async def work() -> None:
        began.set()
        await go_on.wait()
        done.append("work")

    task = asyncio.create_task(every(0, "work", work))
    await began.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    await asyncio.gather(task, return_exceptions=True)
    assert done == ["work"]
    assert task.cancelled()
