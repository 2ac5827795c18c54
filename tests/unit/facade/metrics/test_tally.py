"""What a process of the facade counts, and that no client chooses a label."""

from __future__ import annotations

import pytest

from facade.metrics.tally import OTHER, Attempt, Tally
from facade.problems import Problem

pytestmark = pytest.mark.unit


def test_requests_are_counted_by_what_the_table_names() -> None:
    tally = Tally()
    tally.request("GET", "/healthz", 200, 0.01)
    tally.request("GET", "/healthz", 200, 0.2)
    tally.request("BREW", OTHER, 405, 0.01)
    assert tally.requests == {("GET", "/healthz", "200"): 2, (OTHER, OTHER, "405"): 1}
    assert tally.durations[("/healthz",)].buckets()[0][-1] == ("+Inf", 2)


@pytest.mark.parametrize(
    ("status", "result"), [(401, "refused"), (403, "disabled"), (409, "taken"), (429, "limited"), (503, "busy")]
)
def test_an_attempt_has_the_result_that_its_problem_means(status: int, result: str) -> None:
    tally = Tally()
    with pytest.raises(Problem), tally.attempt(Attempt.LOGIN):
        raise Problem(status, "no")
    assert tally.attempts == {("login", result): 1}


def test_an_attempt_that_succeeds_or_breaks() -> None:
    tally = Tally()
    with tally.attempt(Attempt.SIGNUP):
        pass
    with pytest.raises(OSError, match="gone"), tally.attempt(Attempt.SIGNUP):
        raise OSError("gone")
    assert tally.attempts == {("signup", "ok"): 1, ("signup", "failed"): 1}
