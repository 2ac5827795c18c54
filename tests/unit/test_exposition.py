"""Metrics as numbers become the text that Prometheus reads."""

from __future__ import annotations

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from medforged.exposition import Durations, Metric, build_info, counter, gauge, histogram, parsed, process

pytestmark = pytest.mark.unit


class Families(Collector):
    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> tuple[Metric, ...]:
        return self._families


def samples(*families: Metric) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a reader of the page finds."""
    page = generate_latest(Families(*families)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parsed(page)
        for sample in family.samples
    }


def test_a_duration_belongs_to_the_first_bucket_that_it_does_not_exceed() -> None:
    durations = Durations((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.100001, 1.0, 1.5):
        durations.observe(seconds)
    assert durations.buckets() == ([("0.1", 2), ("1.0", 4), ("+Inf", 5)], pytest.approx(2.700001))


def test_a_page_says_what_was_counted() -> None:
    durations = Durations((0.5,))
    durations.observe(2.0)
    found = samples(
        counter("tries_total", "Tries", "result").numbers({("ok",): 3, ('o"d\n\\d',): 1}),
        gauge("held", "Held").number(True),
        gauge("temperature", "Not offered").number(None),
        histogram("took_seconds", "Took", "what").durations({("it",): durations}),
    )
    assert found == {
        ("tries_total", (("result", "ok"),)): 3,
        ("tries_total", (("result", 'o"d\n\\d'),)): 1,
        ("held", ()): 1,
        ("took_seconds_bucket", (("le", "0.5"), ("what", "it"))): 0,
        ("took_seconds_bucket", (("le", "+Inf"), ("what", "it"))): 1,
        ("took_seconds_count", (("what", "it"),)): 1,
        ("took_seconds_sum", (("what", "it"),)): 2.0,
    }


def test_the_build_and_the_process_tell_of_themselves() -> None:
    found = samples(build_info(gauge("build_info", "What runs", "version", "python")), *process())
    assert [value for (name, _), value in found.items() if name == "build_info"] == [1]
    assert found["process_resident_memory_bytes", ()] > 1024**2
