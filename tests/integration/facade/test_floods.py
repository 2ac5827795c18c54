"""Floods from very many addresses and of very many invented accounts: memory stays, and the limits that matter hold.

The table is small here, so that few make a flood; `MEDFORGE_TEST_FLOOD=1000000` floods one of the real size.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from multidict import CIMultiDict

from facade.auth.addresses import Addresses
from facade.auth.attempts import Attempts
from facade.auth.devices import Devices
from facade.config import Limits as Settings
from facade.limits.limits import Limits
from facade.limits.rules import Rule, windows
from facade.limits.table import WAYS, SharedTable
from facade.problems import Problem
from tests.fakes.clock import SetClock
from tests.integration.facade.conftest import PASSWORD, Api

pytestmark = pytest.mark.integration
# Nothing here depends on what keeps the accounts.
DATABASES = ("sqlite",)

SETTINGS = Settings()
# 2001:db8::/32 has 65,536 networks of /48, and each of them as many of /64.
DOCUMENTATION = int(ipaddress.IPv6Address("2001:db8::"))
FLOOD = int(os.environ.get("MEDFORGE_TEST_FLOOD", "4000"))
SETS = 128 if FLOOD < 100_000 else 2048


class Request:
    remote = ""

    def __init__(self, address: str) -> None:
        self.headers = CIMultiDict({"X-Forwarded-For": address})


def address(network: int, subnet: int = 0, host: int = 1) -> str:
    return str(ipaddress.IPv6Address(DOCUMENTATION + (network << 80) + (subnet << 64) + host))


@pytest.fixture
def table() -> Iterator[SharedTable]:
    made = SharedTable.create(len(Rule), sets=SETS)
    yield made
    made.close()


@pytest.fixture
def attempts(table: SharedTable) -> Attempts:
    """As the facade has them, with the settings that it has by default."""
    clock = SetClock()
    devices = Devices(b"k" * 32, clock, secure=True, ttl=timedelta(days=1))
    return Attempts(Limits(table, windows(SETTINGS), clock), Addresses(), devices)


def guess(attempts: Attempts, address: str, email: str) -> bool:
    """Whether a wrong password is let through."""
    try:
        attempts.sign_in(cast("Any", Request(address)), email)
    except Problem:
        return False
    return True


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_a_flood_of_addresses_and_accounts_fits_into_the_table(attempts: Attempts, table: SharedTable) -> None:
    """Each from a network of its own at an account of its own: the costliest there is."""
    before = resident_kib()
    for number in range(FLOOD):
        assert guess(attempts, address(number), f"invented{number}@example.org")
    grown = resident_kib() - before
    print(f"{FLOOD} guesses: {grown} KiB more resident, table of {table.size // 1024} KiB")
    assert FLOOD > 2 * SETS * WAYS
    assert grown < table.size // 1024 + 2 * 1024


def test_the_facades_table_is_small() -> None:
    made = SharedTable.create(len(Rule))
    assert made.size < 12 * 1024**2
    made.close()


def test_a_victims_counter_outlasts_the_flood(attempts: Attempts) -> None:
    victim = "ada@example.org"
    while guess(attempts, address(1), victim):
        pass
    for network in range(2, 6):
        for _ in range(SETTINGS.failures_per_visitor):
            assert guess(attempts, address(network), victim)
    assert not guess(attempts, address(6), victim), "the account is not used up"
    for number in range(FLOOD):
        guess(attempts, address(100 + number), f"invented{number}@example.org")
    assert not guess(attempts, address(7), victim)


def test_ones_own_address_cannot_be_washed_away_with_invented_accounts(attempts: Attempts) -> None:
    let_through = sum(guess(attempts, address(1), f"invented{number}@example.org") for number in range(1000))
    assert let_through == SETTINGS.attempts_per_address


def test_all_addresses_of_a_network_together_are_limited(attempts: Attempts) -> None:
    let_through = sum(
        guess(attempts, address(1, subnet=number), f"invented{number}@example.org") for number in range(2000)
    )
    assert let_through == SETTINGS.attempts_per_network


async def test_a_facade_under_a_flood_still_signs_people_in(api: Api) -> None:
    person = await api.person()

    async def flood(number: int) -> int:
        answer = await api.post(
            "/api/v1/auth/login",
            headers={"X-Forwarded-For": address(number)},
            json={"email": f"invented{number}@example.org", "password": "wrong horse"},
        )
        return answer.status

    flooding = [asyncio.create_task(flood(number)) for number in range(200)]
    signed_in = 0
    for _ in range(10):
        answer = await api.post("/api/v1/auth/login", json={"email": person.email, "password": PASSWORD})
        signed_in += answer.status == 200
        assert answer.status in (200, 503)
    assert set(await asyncio.gather(*flooding)) <= {401, 503}
    answer = await api.post("/api/v1/auth/login", json={"email": person.email, "password": PASSWORD})
    assert answer.status == 200
