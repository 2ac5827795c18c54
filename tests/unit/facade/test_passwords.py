"""Which passwords are accepted, that checking an unknown user costs as much, and that the queue is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import argon2
import pytest

from facade.auth.passwords import Busy, Passwords, acceptable

pytestmark = pytest.mark.unit


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(time_cost=1, memory_kib=8, parallelism=1, workers=1, waiting=1)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("password", "accepted"),
    [
        ("", False),
        ("1234567", False),
        ("12345678", True),
        ("ü" * 8, True),
        ("x" * 128, True),
        ("x" * 129, False),
        (" " * 8, True),
    ],
)
def test_acceptable(password: str, accepted: bool) -> None:
    assert acceptable(password) is accepted


async def test_right_and_wrong(passwords: Passwords) -> None:
    stored = await passwords.hash("correct horse")
    assert stored.startswith("$argon2id$")
    assert (await passwords.check(stored, "correct horse")).right
    assert not (await passwords.check(stored, "correct horse ")).right
    assert not (await passwords.check("not a hash", "correct horse")).right


async def test_two_hashes_of_one_password_differ(passwords: Passwords) -> None:
    assert await passwords.hash("correct horse") != await passwords.hash("correct horse")


async def test_the_same_letters_in_another_composition_are_the_same_password(passwords: Passwords) -> None:
    stored = await passwords.hash("p\u00e4ssword")
    assert (await passwords.check(stored, "pa\u0308ssword")).right


async def test_an_unknown_user_is_never_right_and_a_real_hash_is_checked(passwords: Passwords) -> None:
    assert not (await passwords.check(None, "whatever it is")).right
    decoy = argon2.extract_parameters(passwords._decoy)
    assert decoy == argon2.extract_parameters(await passwords.hash("x" * 8))


async def test_a_hash_of_other_parameters_is_outdated(passwords: Passwords) -> None:
    older = argon2.PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash("correct horse")
    assert (await passwords.check(older, "correct horse")).outdated
    assert not (await passwords.check(await passwords.hash("correct horse"), "correct horse")).outdated


async def test_more_than_can_wait_are_turned_away(passwords: Passwords) -> None:
    answers = await asyncio.gather(*(passwords.hash("correct horse") for _ in range(5)), return_exceptions=True)
    assert [isinstance(answer, Busy) for answer in answers] == [False, False, True, True, True]
    assert await passwords.hash("correct horse")


def test_costs_are_rfc_9106s_unless_said_otherwise() -> None:
    made = Passwords()
    try:
        parameters = argon2.extract_parameters(made._decoy)
        assert parameters.type is argon2.Type.ID
        assert (parameters.time_cost, parameters.memory_cost, parameters.parallelism) == (3, 64 * 1024, 4)
    finally:
        made.close()
