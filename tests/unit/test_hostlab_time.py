"""The lane `hostlab` in a run that has to be over at some time: whether it begins, and whether it goes on."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.unit


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "ops" / "lib")
    return importlib.import_module("hostlab")


def minutes_left(lane: ModuleType, monkeypatch: pytest.MonkeyPatch, minutes: float) -> None:
    monkeypatch.setenv(lane.DEADLINE_VARIABLE, str(time.time() + 60 * minutes))


def test_a_lane_of_its_own_has_all_the_time(lane: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lane.DEADLINE_VARIABLE, raising=False)
    assert lane.lack_of_time() == ""
    assert lane.time_is_up() == ""


def test_it_begins_where_there_is_time_for_all_of_it(lane: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    minutes_left(lane, monkeypatch, 80)
    assert lane.lack_of_time() == ""
    minutes_left(lane, monkeypatch, 20.4)
    assert lane.lack_of_time().startswith("20 minutes are left of this run")


def test_it_goes_on_until_the_time_is_up(lane: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    minutes_left(lane, monkeypatch, 1)
    assert lane.time_is_up() == ""
    minutes_left(lane, monkeypatch, -1)
    assert "the time of this run was up" in lane.time_is_up()
