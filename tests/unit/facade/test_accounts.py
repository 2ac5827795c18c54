"""Signing in does the same work whether there is such a user or not."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from facade.auth.accounts import AccountDisabled, Accounts, WrongCredentials
from facade.auth.passwords import Checked
from facade.store.users import User
from tests.fakes.clock import SetClock

pytestmark = pytest.mark.unit

ADA = User(UUID(int=1), "ada@example.org", "ada's hash", False, 1, datetime(2026, 1, 1, tzinfo=UTC))


BOB = dataclasses.replace(ADA, id=UUID(int=2), email="bob@example.org", password_hash="bob's hash", is_disabled=True)


class Users:
    def __init__(self) -> None:
        self.replaced: list[tuple[str, str]] = []

    async def by_email(self, email: str) -> User | None:
        return {user.email: user for user in (ADA, BOB)}.get(email)

    async def replace_password_hash(self, _: UUID, old: str, new: str) -> None:
        self.replaced.append((old, new))


class Passwords:
    """Says yes to one password, and remembers what it was asked."""

    def __init__(self, answer: Checked) -> None:
        self.answer = answer
        self.checked: list[tuple[str | None, str]] = []

    async def check(self, stored: str | None, password: str, *, known: bool = False) -> Checked:
        self.checked.append((stored, password))
        return self.answer

    async def hash(self, _: str, *, known: bool = False) -> str:
        return "a new hash"


def accounts(users: Users, passwords: Passwords) -> Accounts:
    unused = cast("Any", None)
    return Accounts(cast("Any", users), unused, cast("Any", passwords), unused, SetClock(), max_concurrent_sessions=1)


@pytest.mark.parametrize(
    ("email", "stored"),
    [
        ("ada@example.org", "ada's hash"),
        ("bob@example.org", "bob's hash"),
        ("eve@example.org", None),
        ("not an address", None),
    ],
)
async def test_a_password_is_checked_in_any_case(email: str, stored: str | None) -> None:
    passwords = Passwords(Checked(right=False))
    asked = accounts(Users(), passwords)
    with pytest.raises(WrongCredentials):
        await asked.sign_in(await asked.find(email), "secret")
    assert passwords.checked == [(stored, "secret")]


async def test_no_user_is_never_signed_in_whatever_the_check_says() -> None:
    with pytest.raises(WrongCredentials):
        await accounts(Users(), Passwords(Checked(right=True))).sign_in(None, "secret")


async def test_an_outdated_hash_is_replaced() -> None:
    users = Users()
    asked = accounts(users, Passwords(Checked(right=True, outdated=True)))
    await asked.sign_in(await asked.find(" ADA@example.org"), "secret")
    assert users.replaced == [("ada's hash", "a new hash")]


async def test_who_knows_a_disabled_accounts_password_learns_that_it_is_disabled() -> None:
    users, passwords = Users(), Passwords(Checked(right=True, outdated=True))
    with pytest.raises(AccountDisabled):
        await accounts(users, passwords).sign_in(BOB, "secret")
    assert passwords.checked == [("bob's hash", "secret")]
    assert users.replaced == []
