"""Owns the tests of a tour: it is killed at every kind of point once, by itself, and counts what it has not survived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.crash.invariants import Violation
from tests.crash.points import Strikes
from tests.crash.scenarios import Scenario
from tests.crash.simulated import SimulatedTestbed
from tests.crash.stages import Run
from tests.crash.tour import Tour, differs, go_round, kind
from tests.crash.world import World

pytestmark = pytest.mark.unit

ACT = ("a before", "a after", "b before", "b after", "a #2 before", "a #2 after")
RECOVERY = ("c before", "c after", "b before", "b after")
BAD = Violation("any", "it does not hold")


class _Testbed(SimulatedTestbed):
    """Nothing is on it."""

    def look(self) -> World:
        return World()

    def describe(self) -> str:
        return ""


class _Tour(Tour):
    """Lives that meet the same points each time; no daemon is started, and where `fatal` was struck, nothing is well."""

    def __init__(self, root: Path, act: tuple[str, ...] = ACT, fatal: str = "") -> None:
        super().__init__(_Testbed(root / "bed"), root / "log")
        self.killed: list[str] = []
        self._strikes: Strikes | None = None
        self._act_points = act
        self._fatal = fatal

    @contextmanager
    def living(self, _scenario: Scenario, strikes: Strikes, **_: object) -> Iterator[Any]:  # type: ignore[override]  # no life
        self._strikes = strikes
        self.shared.reset(armed=False, disturbed=False)
        self.lives += 1
        yield SimpleNamespace()

    def prepare(self, _scenario: Scenario, _life: object) -> None:
        """Nothing has to be there."""

    def observe(self, *_: object) -> Run:
        return self._live(self._act_points)

    def recovered(self, *_: object, **__: object) -> Run:
        return self._live(RECOVERY)

    def looked_at(self, _scenario: Scenario, _before: World, run: Run) -> Run:
        return run

    def resumed(self, *_: object, **__: object) -> list[Violation]:
        return [BAD] if self._fatal in self.killed else []

    def _live(self, points: tuple[str, ...]) -> Run:
        run, previous = Run(), ""
        assert self._strikes is not None
        for label in points:
            run.trace[label] = ""
            if self._strikes(label, previous):
                self.killed.append(label)
                run.killed = True
                break
            previous = label
        return run


def test_it_is_killed_once_at_each_kind(tmp_path: Path) -> None:
    tour = _Tour(tmp_path)
    visit = tour.visit(Scenario("any"))
    # The first act is struck at its beginning, and the recovery from that at all its own kinds, one after the other.
    assert tour.killed == ["a before", "c after", "b after", "a after", "b after"]
    assert (visit.act.survived, visit.act.points) == (3, 3)
    # One in which nothing is left of before, and one after each that was killed: what has survived goes on.
    assert tour.lives == 1 + len(tour.killed)
    assert (visit.recovery.survived, visit.recovery.points) == (2, 2)


def test_a_step_that_is_new_is_in_the_sample(tmp_path: Path) -> None:
    tour = _Tour(tmp_path, act=(*ACT, "new before", "new after"))
    tour.visit(Scenario("any"))
    assert "new after" in tour.killed


def test_a_scenario_without_a_new_kind_is_struck_in_its_middle(tmp_path: Path) -> None:
    tour = _Tour(tmp_path)
    tour.visit(Scenario("one"))
    visit = tour.visit(Scenario("another"))
    assert (visit.act.points, visit.act.met) == (1, {"b after"})


def test_what_is_not_survived_is_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not go_round(_Tour(tmp_path, fatal="a after"), [Scenario("any")])
    said = capsys.readouterr().out
    assert "NOT SURVIVED: any: a after\n  any: it does not hold" in said
    assert said.splitlines()[-1] == "crash points: 3/4 survived"


def test_an_act_without_points_is_a_failure(tmp_path: Path) -> None:
    assert _Tour(tmp_path, act=()).visit(Scenario("any")).failures


def test_nothing_that_is_visited_is_no_success(tmp_path: Path) -> None:
    assert not go_round(_Tour(tmp_path), [])


@pytest.mark.parametrize(("label", "told"), [("x.y after", "x.y after"), ("x.y #12 before", "x.y before")])
def test_a_kind_is_the_same_for_every_call(label: str, told: str) -> None:
    assert kind(label) == told


def test_before_the_next_step_is_after_the_last() -> None:
    assert differs("a after", "a before")
    assert not differs("b before", "a after")
    # Something is under way then.
    assert differs("b before", "a before")
