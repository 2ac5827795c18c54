"""Who is an operator, by the kernel's word, and who never is."""

from __future__ import annotations

import os

import pytest

from facade.config import Operators
from facade.operators.server import operator_policy
from medforged.calls.access import AccessPolicy
from medforged.calls.peercred import Peer
from medforged.contract.methods import Access
from medforged.contract.operators import OPERATOR_METHODS

pytestmark = pytest.mark.unit

FACADE, CADDY, OPERATORS = 991, 992, 990


@pytest.mark.parametrize(
    ("uid", "groups", "level"),
    [
        (0, {0}, Access.OPERATOR),
        (1000, {1000, OPERATORS}, Access.OPERATOR),
        (1000, {1000}, Access.NONE),
        (CADDY, {CADDY}, Access.NONE),
        # In the operators' group, for the daemon's socket, and in Caddy's, for its own.
        (FACADE, {FACADE, OPERATORS, CADDY}, Access.FACADE),
        (65534, {65534}, Access.NONE),
    ],
)
def test_peers(uid: int, groups: set[int], level: Access) -> None:
    policy = AccessPolicy(facade_uid=FACADE, operator_gid=OPERATORS, own_uid=FACADE)
    assert policy.level(Peer(1, uid, frozenset(groups))) is level


def test_every_method_is_for_operators() -> None:
    assert {method.access for method in OPERATOR_METHODS} == {Access.OPERATOR}


def test_what_changes_anything_is_audited() -> None:
    assert {method.name for method in OPERATOR_METHODS if not method.audited} == {"users.list"}


@pytest.mark.parametrize(("own_user", "level"), [(False, Access.FACADE), (True, Access.OPERATOR)])
def test_the_facades_own_user_is_an_operator_in_a_trial_only(own_user: bool, level: Access) -> None:
    policy = operator_policy(Operators(group="no-such-group", own_user=own_user))
    assert policy.operator_gid is None
    if os.geteuid() != 0:  # root is one in any case
        assert policy.level(Peer(1, os.geteuid(), frozenset({os.getegid()}))) is level
    assert (policy.facade_uid is None) is own_user
    assert policy.own_uid == os.geteuid()
