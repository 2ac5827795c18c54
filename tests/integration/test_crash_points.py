"""Owns the test that the daemon survives a SIGKILL at every point, and that a protection which is missing is noticed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.sabotages import SABOTAGES

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


def _crash(*arguments: str, seconds: int) -> tuple[int, list[str]]:
    """The status and what was printed. It is a process of its own because daemons are forked from it: it must have no
    thread, and no event loop."""
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.crash", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        output, _ = program.communicate(timeout=seconds)
    finally:
        # It clears away what it has in memory, and its daemons die with it.
        program.terminate()
        program.wait()
    print(output)
    return program.returncode, output.splitlines()


@pytest.mark.timeout(900)
def test_every_crash_point_is_survived() -> None:
    status, lines = _crash(seconds=870)
    found = re.fullmatch(r"crash points: (\d+)/(\d+) survived", lines[-1])
    assert found, lines[-1]
    survived, points = map(int, found.groups())
    assert survived == points > 300
    assert status == 0


@pytest.mark.timeout(180)
def test_a_sample_is_survived_without_copies_of_states() -> None:
    """As tests/host/test_crash_points.py does it with the real adapters."""
    status, lines = _crash("--sample", "--scenario", "create", "--scenario", "stop", seconds=170)
    found = re.fullmatch(r"crash points: (\d+)/(\d+) survived", lines[-1])
    assert found, lines[-1]
    survived, points = map(int, found.groups())
    assert survived == points > 30
    assert status == 0


@pytest.mark.timeout(300)
def test_every_protection_that_is_taken_away_is_missed() -> None:
    status, lines = _crash("--controls", seconds=270)
    assert lines[-1] == f"controls: {len(SABOTAGES)}/{len(SABOTAGES)} noticed"
    assert status == 0
