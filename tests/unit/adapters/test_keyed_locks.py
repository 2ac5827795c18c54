"""Locks per key: the same waits, others do not, and nothing is kept."""

from __future__ import annotations

import asyncio

import pytest

from medforged.adapters.keyed_locks import KeyedLocks

pytestmark = pytest.mark.unit


async def test_the_same_key_waits_and_others_do_not() -> None:
    locks, order = KeyedLocks(), []

    async def work(key: str, gate: asyncio.Event) -> None:
        async with locks.hold(key):
            order.append(f"{key} in")
            await gate.wait()
            order.append(f"{key} out")

    closed, opened = asyncio.Event(), asyncio.Event()
    opened.set()
    first, second = asyncio.create_task(work("a", closed)), asyncio.create_task(work("a", opened))
    await asyncio.create_task(work("b", opened))
    assert order == ["a in", "b in", "b out"]
    closed.set()
    await asyncio.gather(first, second)
    assert order[3:] == ["a out", "a in", "a out"]


async def test_nothing_is_kept() -> None:
    locks = KeyedLocks()

    async def hold(key: str) -> None:
        async with locks.hold(key):
            await asyncio.sleep(0)

    task = asyncio.create_task(hold("a"))
    await asyncio.gather(hold("a"), hold("b"), task)
    waiting = asyncio.create_task(hold("c"))
    async with locks.hold("c"):
        await asyncio.sleep(0)
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert vars(locks) == {"_locks": {}, "_wanted": {}}
