"""What a principal may do, by the way in which it shows who it is."""

from __future__ import annotations

from uuid import UUID

import pytest

from facade.auth.principals import Principal, Scope

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("is_admin", "scopes", "may"),
    [
        (True, None, True),
        (False, None, False),
        (True, {Scope.ADMIN_READ}, True),
        (True, {Scope.ADMIN_WRITE, Scope.SESSIONS_READ}, False),
        (True, set(), False),
        (False, {Scope.ADMIN_READ}, False),
    ],
)
def test_an_admins_token_administers_within_its_scopes(is_admin: bool, scopes: set[Scope] | None, may: bool) -> None:
    frozen = None if scopes is None else frozenset(scopes)
    principal = Principal(UUID(int=1), "ada@example.org", is_admin, 1, frozen)
    assert principal.administers(Scope.ADMIN_READ) is may
