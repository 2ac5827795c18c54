"""One installation of MedForge for all host and browser tests that need a whole one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.host.installation import Installation, Visitor


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """Brought up by `ops/up` beside whatever else runs here, and taken down by `ops/down`."""
    made = Installation()
    made.clear()
    made.up()
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
async def visitor(installation: Installation) -> AsyncIterator[Visitor]:
    """Somebody without an account; TLS is verified against the installation's own authority."""
    async with installation.visitor() as somebody:
        yield somebody


@pytest.fixture
async def alice(installation: Installation) -> AsyncIterator[Visitor]:
    """Somebody with an account; her sessions are stopped at the end."""
    async with installation.account() as somebody:
        yield somebody


@pytest.fixture
async def bob(installation: Installation) -> AsyncIterator[Visitor]:
    """Somebody else with an account; his sessions are stopped at the end."""
    async with installation.account() as somebody:
        yield somebody
