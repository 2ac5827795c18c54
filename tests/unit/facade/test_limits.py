"""Several limits at once: all are charged or none, and the wait that is told is the one that helps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from facade.config import Limits as Settings
from facade.limits.limits import LimitExceeded, Limits
from facade.limits.rules import Rule, windows
from facade.limits.table import SharedTable
from facade.limits.windows import LIMIT_MAX, SLICES, Window
from tests.fakes.clock import SetClock

pytestmark = pytest.mark.unit

ONE, OTHER = (Rule.ADDRESS_ATTEMPTS, b"one"), (Rule.ACCOUNT_FAILURES, b"other")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def table() -> Iterator[SharedTable]:
    made = SharedTable.create(len(Rule), sets=16)
    yield made
    made.close()


@pytest.fixture
def limits(table: SharedTable, clock: SetClock) -> Limits:
    return Limits(table, {Rule.ADDRESS_ATTEMPTS: Window(3, 60), Rule.ACCOUNT_FAILURES: Window(2, 600)}, clock)


def test_all_or_none(limits: Limits) -> None:
    for _ in range(2):
        limits.take(ONE, OTHER)
    with pytest.raises(LimitExceeded) as caught:
        limits.take(ONE, OTHER)
    assert caught.value.rule is Rule.ACCOUNT_FAILURES
    limits.take(ONE)
    with pytest.raises(LimitExceeded):
        limits.take(ONE)


def test_the_longest_wait_is_told_and_waiting_so_long_succeeds(limits: Limits, clock: SetClock) -> None:
    limits.take(ONE)
    clock.advance(seconds=30)
    for _ in range(2):
        limits.take(ONE, OTHER)
    with pytest.raises(LimitExceeded) as caught:
        limits.take(ONE, OTHER)
    assert caught.value.rule is Rule.ACCOUNT_FAILURES
    assert 600 <= caught.value.seconds <= 600 + 600 // SLICES
    clock.advance(seconds=caught.value.seconds - 1)
    with pytest.raises(LimitExceeded):
        limits.take(ONE, OTHER)
    clock.advance(seconds=1)
    limits.take(ONE, OTHER)


def test_going_on_trying_puts_nothing_off(limits: Limits, clock: SetClock) -> None:
    for _ in range(2):
        limits.take(OTHER)
    with pytest.raises(LimitExceeded) as caught:
        limits.take(OTHER)
    for _ in range(caught.value.seconds):
        with pytest.raises(LimitExceeded):
            limits.take(OTHER)
        clock.advance(seconds=1)
    limits.take(OTHER)


def test_what_is_taken_back_is_free_again(limits: Limits) -> None:
    for _ in range(10):
        limits.take(OTHER).take_back(Rule.ACCOUNT_FAILURES)
    taken = limits.take(ONE, OTHER)
    for _ in range(3):
        taken.take_back(Rule.ACCOUNT_FAILURES)  # once, however often
    limits.take(OTHER)
    limits.take(OTHER)
    with pytest.raises(LimitExceeded):
        limits.take(OTHER)


def test_setting_the_clock_changes_nothing(limits: Limits, clock: SetClock) -> None:
    for _ in range(2):
        limits.take(OTHER)
    for year in (1990, 2090):
        clock.set(clock.now().replace(year=year))
        with pytest.raises(LimitExceeded) as caught:
            limits.take(OTHER)
        assert caught.value.seconds <= 630


def test_every_rule_has_a_window_that_a_counter_can_hold() -> None:
    settings = Settings()
    assert set(windows(settings)) == set(Rule)
    assert sorted(Rule) == list(range(len(Rule)))
    assert all(window.limit < LIMIT_MAX for window in windows(settings).values())
