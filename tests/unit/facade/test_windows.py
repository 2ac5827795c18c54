"""Sliding windows hold what they promise: held against the plain list of all moments."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facade.limits.windows import COUNTS, SLICES, Counter, Window

pytestmark = pytest.mark.unit

WINDOW = Window(limit=3, seconds=20)
SECOND = 10**9

windows = st.builds(
    Window,
    limit=st.integers(1, 6),
    seconds=st.floats(1, 100_000) | st.sampled_from([1, 60, 300, 900, 3600, 86_400]),
)


def moments(window: Window) -> st.SearchStrategy[list[int]]:
    """Pauses between tries, from none at all to several windows."""
    length = round(window.seconds * SECOND)
    pause = st.integers(0, length // 20) | st.integers(0, 3 * length) | st.sampled_from([0, window.slice_ns, length])
    return st.lists(pause, max_size=80)


def attempt(window: Window, counter: Counter, now: int) -> int:
    wait = window.wait_ns(counter, now)
    if not wait:
        counter.add(window.slice_at(now))
    return wait


@settings(deadline=None)  # how long it takes is the machine's business
@given(data=st.data(), window=windows, start=st.integers(0, 2**62))
def test_no_stretch_of_the_windows_length_holds_more_and_no_more_is_refused_than_must(
    data: st.DataObject, window: Window, start: int
) -> None:
    length = round(window.seconds * SECOND)
    admitted: list[int] = []
    counter = Counter.fresh(window.slice_at(start))
    now = start
    for pause in data.draw(moments(window)):
        now += pause
        wait = attempt(window, counter, now)
        within = [moment for moment in admitted if now - moment < length]
        nearly = [moment for moment in admitted if now - moment < length + window.slice_ns]
        if wait:
            assert len(nearly) >= window.limit
            assert wait <= COUNTS * window.slice_ns
        else:
            assert len(within) < window.limit
            admitted.append(now)


@settings(deadline=None)  # how long it takes is the machine's business
@given(data=st.data(), window=windows, start=st.integers(0, 2**62))
def test_after_the_wait_it_succeeds_and_not_a_nanosecond_before(
    data: st.DataObject, window: Window, start: int
) -> None:
    counter = Counter.fresh(window.slice_at(start))
    now = start
    for pause in data.draw(moments(window)):
        now += pause
        if wait := attempt(window, counter, now):
            assert window.wait_ns(counter, now + wait - 1) == 1
            assert window.wait_ns(counter, now + wait) == 0


@settings(deadline=None)  # how long it takes is the machine's business
@given(window=windows, start=st.integers(0, 2**62), pauses=st.lists(st.integers(0, 2**40), max_size=50))
def test_what_is_taken_back_was_never_there(window: Window, start: int, pauses: list[int]) -> None:
    kept, taken_back = Counter.fresh(window.slice_at(start)), Counter.fresh(window.slice_at(start))
    now = start
    for turn, pause in enumerate(pauses):
        now += pause
        number = window.slice_at(now)
        taken_back.add(number)
        if turn % 2:
            kept.add(number)
        else:
            taken_back.take_back(number)
        assert taken_back.total(number) == kept.total(number)


def test_taking_back_what_is_long_over_changes_nothing() -> None:
    counter = Counter.fresh(0)
    counter.add(0)
    counter.add(COUNTS)
    counter.take_back(0)
    assert counter.total(COUNTS) == 1


def test_slices_are_never_shorter_than_a_part_of_the_window() -> None:
    for seconds in (1, 7, 0.3, 900, 86_400):
        assert Window(1, seconds).slice_ns * SLICES >= seconds * SECOND


def test_a_count_of_the_next_slice_is_seen() -> None:
    """Another worker's clock was read a moment later, and it was first."""
    counter = Counter.fresh(0)
    now = 5 * WINDOW.slice_ns - 1
    for _ in range(WINDOW.limit):
        counter.add(WINDOW.slice_at(now) + 1)
    assert WINDOW.wait_ns(counter, now) == COUNTS * WINDOW.slice_ns + 1
