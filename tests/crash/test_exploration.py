"""Owns the tests of counting: what was not met again, or not survived, is never counted as survived, nor what is known
as tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from tests.crash.exploration import Explorer
from tests.crash.invariants import Violation
from tests.crash.repertory import Repertory
from tests.crash.scenarios import Scenario
from tests.crash.stages import Run
from tests.crash.tallies import State, Tally

pytestmark = pytest.mark.unit

SCENARIO = Scenario("any")
BAD = Violation("any", "it does not hold")


class _Theatre:
    """Lives that go as they are told to: `trace` tells the points with what a crash there leaves; some are not met again,
    and some are not survived."""

    def __init__(self, root: Path, trace: Mapping[str, str], *, shy: str = "", fatal: str = "") -> None:
        self.lives = 0
        self.restarts = 0
        self._trace = trace
        self._shy = shy
        self._fatal = fatal
        self._at = ""

    def recover(self, _scenario: Scenario, _state: Path, target: str | None) -> Run:
        self.lives += 1
        self._at = target or ""
        return Run(trace=dict(self._trace), killed=target not in (None, self._shy))

    def act(self, scenario: Scenario, state: Path, target: str | None) -> Run:
        run = self.recover(scenario, state, target)
        run.trace = dict.fromkeys(run.trace, "")
        return run

    def key(self, _scenario: Scenario) -> str:
        return self._trace.get(self._at, "begin")

    def survive(self, _scenario: Scenario, *, acted: bool) -> list[Violation]:
        self.restarts += 1
        return [BAD] if self._at == self._fatal else []

    def set_up(self, _scenario: Scenario) -> None:
        self._at = ""

    def said(self) -> str:
        return ""

    describe = said

    def keep(self, _kept: Path) -> None:
        """Nothing is there."""


Recover = Callable[..., tuple[Tally, _Theatre]]


@pytest.fixture
def recover(tmp_path: Path) -> Recover:
    def recover(trace: Mapping[str, str], known: tuple[str, ...] = (), **other: str) -> tuple[Tally, _Theatre]:
        theatre = _Theatre(tmp_path, trace, **other)
        explorer = Explorer(cast("Repertory", theatre), tmp_path, known)
        return explorer.recovery(SCENARIO, State("begin", tmp_path, "any", "a crash")), theatre

    return recover


def test_every_new_state_is_restarted(recover: Recover) -> None:
    tally, theatre = recover({"a": "1", "b": "2"})
    assert (tally.points, tally.survived, tally.known, tally.killed, theatre.restarts) == (2, 2, 0, 2, 2)
    assert [state.key for state in tally.states] == ["1", "2"]


def test_what_is_known_is_counted_apart(recover: Recover) -> None:
    tally, theatre = recover({"a": "1", "b": "2", "c": "2"}, known=("1",))
    assert (tally.points, tally.survived, tally.known, tally.killed, theatre.restarts) == (3, 3, 2, 1, 1)


def test_a_state_that_proves_known_after_the_crash_is_counted_apart(recover: Recover) -> None:
    # What would be left was not told, as in lives that two things at the same time make different.
    tally, theatre = recover({"a": ""}, known=("",))
    assert (tally.points, tally.survived, tally.known, theatre.restarts) == (1, 1, 1, 0)


def test_a_point_that_is_not_met_again_is_not_survived(recover: Recover) -> None:
    tally, theatre = recover({"a": "1", "b": "2"}, shy="b")
    assert (tally.points, tally.survived, tally.missed) == (2, 1, ["b"])
    assert theatre.lives == 1 + 1 + 10


def test_a_point_that_is_not_survived_is_a_failure(recover: Recover) -> None:
    tally, _ = recover({"a": "1", "b": "2"}, fatal="a")
    assert (tally.points, tally.survived) == (2, 1)
    assert [(failure.where, failure.violations) for failure in tally.failures] == [("a", [BAD])]


def test_every_point_of_an_act_is_restarted(tmp_path: Path) -> None:
    theatre = _Theatre(tmp_path, {"a": "1", "b": "1"})
    tally = Explorer(cast("Repertory", theatre), tmp_path).act(SCENARIO)
    # Both leave the same, and what becomes of the act is asked after each.
    assert (tally.points, tally.survived, tally.known, theatre.restarts) == (2, 2, 0, 2)
    assert [state.key for state in tally.states] == ["begin", "1"]
