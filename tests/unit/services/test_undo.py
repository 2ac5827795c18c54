"""Undoing a half-done sequence."""

from __future__ import annotations

import asyncio

import pytest

from medforged.domain.errors import WorkspaceError
from medforged.services.undo import UndoStack

pytestmark = pytest.mark.unit


def noting(log: list[str], what: str, error: Exception | None = None):
    async def undo() -> None:
        log.append(what)
        if error is not None:
            raise error

    return undo


async def test_steps_are_undone_last_first_whatever_fails_between() -> None:
    log: list[str] = []
    undo = UndoStack()
    undo.push("remove a", noting(log, "a"))
    undo.push("remove b", noting(log, "b", WorkspaceError("dataset is busy")))
    undo.push("remove c", noting(log, "c"))
    assert await undo.unwind() == ("cannot remove b: dataset is busy",)
    assert log == ["c", "b", "a"]
    assert await undo.unwind() == ()
    assert log == ["c", "b", "a"], "a step was undone twice"


async def test_committed_steps_stay() -> None:
    log: list[str] = []
    undo = UndoStack()
    undo.push("remove a", noting(log, "a"))
    undo.commit()
    assert await undo.unwind() == ()
    assert log == []


async def test_a_caller_who_goes_away_does_not_leave_half_of_it() -> None:
    log: list[str] = []
    entered, proceed, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        entered.set()
        await proceed.wait()
        log.append("slow")

    async def first() -> None:
        log.append("first")
        finished.set()

    undo = UndoStack()
    undo.push("remove first", first)
    undo.push("remove slow", slow)
    caller = asyncio.ensure_future(undo.unwind())
    await entered.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    proceed.set()
    await finished.wait()
    assert log == ["slow", "first"]
