"""The fixtures `world` and `isolation`: real containers on a network of their own, shared by all modules that name this one as plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from medforged.adapters.isolation import EastWestIsolation
from tests.host.isolation_world import World, made_world


@pytest.fixture(scope="session")
def running_world() -> Iterator[World]:
    with made_world() as world:
        yield world


@pytest.fixture
def world(running_world: World) -> World:
    """Shared by all tests, which leave it as they found it: without isolation."""
    return running_world


@pytest.fixture
async def isolation(world: World) -> AsyncIterator[EastWestIsolation]:
    """An installation of its own, which has established nothing yet."""
    made = EastWestIsolation(world.spec.name)
    try:
        yield made
    finally:
        await made.remove(world.network)
        await made.close()
