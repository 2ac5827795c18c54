"""The keys that the facade makes for itself: made once, whoever asks first, and the same for everybody from then on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from facade.config import Database
from facade.store.engine import Store
from facade.store.secrets import Secrets
from tests.fakes.clock import SetClock

pytestmark = pytest.mark.integration


@pytest.fixture
async def stores(database: str) -> AsyncIterator[list[Store]]:
    """As several processes have them."""
    made = [Store.of(Database(url=database)) for _ in range(4)]
    await made[0].open()
    yield made
    for store in made:
        await store.close()


async def test_of_several_processes_that_ask_at_once_all_get_the_same(stores: list[Store]) -> None:
    asked = [Secrets(store, SetClock()).get("device-cookies", 32) for store in stores for _ in range(3)]
    keys = await asyncio.gather(*asked)
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    async with stores[0].reading() as connection:
        assert (await connection.execute(text("SELECT COUNT(*) FROM secrets"))).scalar_one() == 1


async def test_it_stays_and_each_name_has_its_own(stores: list[Store]) -> None:
    one, other = (Secrets(store, SetClock()) for store in stores[:2])
    first = await one.get("first", 32)
    assert await other.get("first", 64) == first
    assert await other.get("second", 32) != first
