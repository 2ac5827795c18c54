"""Owns the tests of how simulated readiness can be made to fail."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from medforged.adapters.simulated.readiness import SimulatedReadiness
from medforged.domain.errors import NotReady

pytestmark = pytest.mark.unit

ADDRESS, OTHER = IPv4Address("10.20.0.5"), IPv4Address("10.20.0.6")


async def test_failure_comes_as_often_as_it_was_ordered() -> None:
    probe = SimulatedReadiness()
    probe.fail(2)

    for _ in range(2):
        with pytest.raises(NotReady, match="simulated"):
            await probe.wait(ADDRESS, 8080, 5)

    await probe.wait(ADDRESS, 8080, 5)


async def test_silence_is_that_of_one_address_and_ends() -> None:
    probe = SimulatedReadiness()
    probe.silence(ADDRESS)
    await probe.wait(OTHER, 8080, 5)
    with pytest.raises(NotReady):
        await probe.wait(ADDRESS, 8080, 5)

    probe.answer(ADDRESS)

    await probe.wait(ADDRESS, 8080, 5)


async def test_timeout_that_is_shorter_than_the_latency_is_honoured() -> None:
    with pytest.raises(NotReady):
        await SimulatedReadiness(latency_seconds=600).wait(ADDRESS, 8080, 0.01)
