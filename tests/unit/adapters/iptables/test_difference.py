"""Owns what counts as damage to our chains, and what of somebody else's does not."""

from __future__ import annotations

import pytest

from medforged.adapters.iptables.difference import Desired, compare
from medforged.adapters.iptables.entries import Entry

pytestmark = pytest.mark.unit

NAME = "MEDFORGE-abcdef-FORWARD"
JUMP = Entry(b"any", (), NAME)
DROP = Entry(b"bridge", (), "DROP")
BACK = Entry(b"proxy", (), "RETURN")
FOREIGN = Entry(b"theirs", (), "ACCEPT")
SIBLING = Entry(b"any", (), "MEDFORGE-fedcba-FORWARD")
DESIRED = (Desired(NAME, "FORWARD", JUMP, (BACK, DROP)),)


@pytest.mark.parametrize("hook", [(JUMP,), (JUMP, FOREIGN), (SIBLING, JUMP, FOREIGN), (SIBLING, JUMP, SIBLING)])
def test_nothing_to_repair(hook: tuple[Entry, ...]) -> None:
    assert compare(DESIRED, {NAME: (BACK, DROP), "FORWARD": hook}) == ()


@pytest.mark.parametrize(
    "hook",
    [
        (FOREIGN, JUMP),
        (SIBLING, FOREIGN, JUMP),
        (JUMP, JUMP),
        (Entry(b"narrowed", (), NAME),),
        (Entry(b"narrowed", (), NAME), JUMP),
    ],
)
def test_a_jump_that_is_not_the_first_word_is_put_first(hook: tuple[Entry, ...]) -> None:
    (repair,) = compare(DESIRED, {NAME: (BACK, DROP), "FORWARD": hook})

    assert (repair.rebuild, repair.rejump) == (False, True)
    assert repair.reasons == (f"jump from FORWARD to {NAME} put first",)


@pytest.mark.parametrize(
    "rules", [(), (DROP,), (DROP, BACK), (BACK, DROP, DROP), (FOREIGN, BACK, DROP), (BACK, FOREIGN)]
)
def test_rules_that_are_not_exactly_ours_are_restored(rules: tuple[Entry, ...]) -> None:
    (repair,) = compare(DESIRED, {NAME: rules, "FORWARD": (JUMP,)})

    assert (repair.rebuild, repair.rejump) == (True, False)
    assert repair.reasons == (f"rules of chain {NAME} restored",)


def test_nothing_there_at_all() -> None:
    (repair,) = compare(DESIRED, {})

    assert (repair.chain, repair.hook, repair.rebuild, repair.rejump) == (NAME, "FORWARD", True, True)
    assert repair.reasons == (f"chain {NAME} made", f"jump from FORWARD to {NAME} set")


def test_each_chain_is_looked_at() -> None:
    other = Desired("MEDFORGE-abcdef-INPUT", "INPUT", Entry(b"any", (), "MEDFORGE-abcdef-INPUT"), (DROP,))
    repairs = compare((*DESIRED, other), {NAME: (BACK, DROP), "FORWARD": (JUMP,), "INPUT": (FOREIGN,)})

    assert [repair.chain for repair in repairs] == ["MEDFORGE-abcdef-INPUT"]
