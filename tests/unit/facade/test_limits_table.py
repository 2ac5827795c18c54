"""The table of counters: held against a dictionary, and what a flood of keys can and cannot do to it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facade.limits.table import WAYS, SharedTable, TableMismatch
from facade.limits.windows import COUNTS, Counter, Window

pytestmark = pytest.mark.unit

WINDOW = Window(limit=3, seconds=20)
SECOND = 10**9
START = 10**15


@pytest.fixture
def table() -> Iterator[SharedTable]:
    made = SharedTable.create(2, sets=4)
    yield made
    made.close()


def fill(table: SharedTable, region: int, keys: range, now: int = START, times: int = 1) -> None:
    for number in keys:
        for _ in range(times):
            assert table.take(region, b"flood %d" % number, WINDOW, now) == 0


step = st.tuples(
    st.sampled_from(["take", "take", "back"]),
    st.integers(0, 1),
    st.integers(0, 2),
    st.integers(0, 6 * SECOND) | st.integers(0, 60 * SECOND),
)


@settings(deadline=None)  # how long it takes is the machine's business
@given(steps=st.lists(step, max_size=60))
def test_it_counts_as_a_dictionary_does(steps: list[tuple[str, int, int, int]]) -> None:
    """No more keys than always fit: nothing is displaced."""
    plain: dict[tuple[int, int], Counter] = defaultdict(lambda: Counter.fresh(0))
    table = SharedTable.create(2, sets=4)
    now = START
    moments = [START]
    try:
        for what, region, number, pause in steps:
            now += pause
            counter, key = plain[region, number], b"%d" % number
            wait = WINDOW.wait_ns(counter, now)
            for window in (Window(limit, WINDOW.seconds) for limit in range(1, WINDOW.limit + 1)):
                assert table.wait_ns(region, key, window, now) == window.wait_ns(counter, now)
            if what == "back":
                moment = moments[pause % len(moments)]
                counter.take_back(WINDOW.slice_at(moment))
                table.take_back(region, key, WINDOW, moment)
            else:
                assert table.take(region, key, WINDOW, now) == wait
                if not wait:
                    counter.add(WINDOW.slice_at(now))
                    moments.append(now)
    finally:
        table.close()


def test_a_counter_that_has_reached_its_limit_outlasts_a_flood_of_new_keys(table: SharedTable) -> None:
    fill(table, 0, range(1), times=WINDOW.limit)
    fill(table, 0, range(1, 2000), START + SECOND)
    assert table.wait_ns(0, b"flood 0", WINDOW, START + SECOND) > 0


def test_a_flood_in_one_region_leaves_the_others_alone(table: SharedTable) -> None:
    fill(table, 0, range(1))
    fill(table, 1, range(2000), times=WINDOW.limit)
    fill(table, 0, range(1), times=WINDOW.limit - 1)
    assert table.wait_ns(0, b"flood 0", WINDOW, START) > 0


def test_a_full_table_still_counts_a_new_key(table: SharedTable) -> None:
    fill(table, 0, range(2000), times=WINDOW.limit)
    for _ in range(WINDOW.limit):
        assert table.take(0, b"new", WINDOW, START) == 0
    assert table.take(0, b"new", WINDOW, START) > 0


def test_what_has_run_out_makes_room_first(table: SharedTable) -> None:
    over = START + COUNTS * WINDOW.slice_ns
    fill(table, 0, range(2000), times=WINDOW.limit)
    fill(table, 0, range(3000, 3000 + WAYS // 2), over)
    for number in range(3000, 3000 + WAYS // 2):
        for _ in range(WINDOW.limit - 1):
            assert table.take(0, b"flood %d" % number, WINDOW, over) == 0
        assert table.take(0, b"flood %d" % number, WINDOW, over) > 0


def test_looking_and_refusing_make_no_room(table: SharedTable) -> None:
    before = bytes(table._memory)
    for number in range(100):
        assert table.wait_ns(0, b"%d" % number, WINDOW, START) == 0
    assert bytes(table._memory) == before
    fill(table, 0, range(1), times=WINDOW.limit)
    before = bytes(table._memory)
    assert table.take(0, b"flood 0", WINDOW, START) > 0
    assert bytes(table._memory) == before


def test_what_a_dying_writer_leaves_behind_is_no_time_and_blocks_nobody(table: SharedTable) -> None:
    """A newest slice from the far future, as half of a number that was being written."""
    fill(table, 0, range(1), times=WINDOW.limit)
    tag, at = table._place(0, b"flood 0")
    way = next(way for way in table._ways(at) if way.tag == tag)
    way.counter.newest = 2**32 - 1
    table._write(way)
    assert table.wait_ns(0, b"flood 0", WINDOW, START) == 0
    fill(table, 0, range(1), times=WINDOW.limit)
    assert table.take(0, b"flood 0", WINDOW, START) > 0


def test_neither_keys_nor_their_places_can_be_read_or_foreseen() -> None:
    tables = [SharedTable.create(1, sets=64) for _ in range(2)]
    for table in tables:
        assert table.take(0, b"ada@example.org", WINDOW, START) == 0
        assert b"ada@example" not in bytes(table._memory)
    assert tables[0]._place(0, b"ada@example.org") != tables[1]._place(0, b"ada@example.org")
    for table in tables:
        table.close()


def test_its_size_is_fixed_and_nobody_can_change_it(table: SharedTable) -> None:
    size = os.fstat(table.fd).st_size
    fill(table, 0, range(5000))
    assert table.size == size == os.fstat(table.fd).st_size
    for other in (0, size * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(table.fd, other)


def test_what_is_not_a_table_of_this_release_is_refused(table: SharedTable) -> None:
    with pytest.raises(TableMismatch):
        SharedTable.attach(table.fd, 3)
    fd = os.memfd_create("something else")
    os.ftruncate(fd, table.size)
    with pytest.raises(TableMismatch):
        SharedTable.attach(fd, 2)
    os.close(fd)
