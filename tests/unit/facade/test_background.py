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
    left = 4

    async def work() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()
        if (outcome := next(outcomes)) is not None:
            raise outcome

    with capture_logs() as logs:
        task = asyncio.create_task(every(0, "work", work))
        await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [entry["reason"] for entry in logs] == ["OSError: a", "OSError: c"]
