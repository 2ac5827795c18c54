"""Which calls may be made twice."""

from __future__ import annotations

import pytest

from medforged.client.repeating import REPEATABLE, may_repeat
from medforged.contract.methods import METHODS, sessions_create, sessions_stop
from medforged.contract.operators import OPERATOR_METHODS

pytestmark = pytest.mark.unit


def test_what_changes_nothing_may_be_repeated_and_a_stop() -> None:
    assert {method.name for method in (*METHODS, *OPERATOR_METHODS) if not method.audited} <= REPEATABLE
    assert may_repeat(sessions_stop)


def test_nothing_else_may() -> None:
    audited = {method.name for method in (*METHODS, *OPERATOR_METHODS) if method.audited}
    assert audited & REPEATABLE == {"sessions.stop"}
    assert not may_repeat(sessions_create)
