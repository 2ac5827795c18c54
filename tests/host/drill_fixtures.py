"""The fixtures of the drills, for modules that name this one as plugin: a host apart and daemons on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.drill_daemon import DaemonMaker, DrillDaemon
from tests.host.drill_engine import Engine, engine_apart
from tests.host.zfs_pool import ScratchPool, scratch_pool


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with engine_apart() as made:
        yield made


@pytest.fixture(scope="session")
def pool() -> Iterator[ScratchPool]:
    with scratch_pool(prefix="mfdrill") as made:
        yield made


@pytest.fixture
async def make_daemon(engine: Engine, pool: ScratchPool) -> AsyncIterator[DaemonMaker]:
    """Makes daemons that have not been started; arguments as of DrillDaemon."""
    made: list[DrillDaemon] = []

    def make(*, pool: ScratchPool = pool, state: Path | None = None, **options: Any) -> DrillDaemon:
        made.append(DrillDaemon(engine, pool, state or engine.directory / f"state-{len(made)}", **options))
        return made[-1]

    yield make
    for daemon in made:
        try:
            await daemon.clear()
        finally:
            daemon.close()


@pytest.fixture(scope="session")
def standing_daemon(engine: Engine, pool: ScratchPool) -> Iterator[DrillDaemon]:
    made = DrillDaemon(engine, pool, engine.directory / "state")
    yield made
    made.close()


@pytest.fixture
async def daemon(standing_daemon: DrillDaemon) -> AsyncIterator[DrillDaemon]:
    """One that runs, without sessions; shared by all drills that leave it as they found it."""
    if not standing_daemon.running:
        standing_daemon.launch()
    await standing_daemon.healthy()
    yield standing_daemon
    await standing_daemon.clear()
