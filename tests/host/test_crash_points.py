"""Owns the test that the daemon survives a SIGKILL on a real host: with Docker, ZFS, iptables and the bridge, at a sample
of the points that tests/integration/test_crash_points.py goes through completely on the simulated one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.scenarios import SCENARIOS
from tests.host.crash import LEFT_OUT
from tests.host.drill_daemon import DaemonMaker, DrillDaemon

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.drill_fixtures"]

ROOT = Path(__file__).resolve().parents[2]
# Each depends on what an adapter has really done to the host: container, snapshot, rules, or what is found after a start.
CONTROLS = (
    "recovery sees nothing",
    "containers are not removed",
    "snapshots are not taken",
    "isolation only says so",
)


def _crash(daemon: DrillDaemon, *arguments: str, seconds: int) -> tuple[int, list[str]]:
    """The status and what was printed."""
    program = subprocess.Popen(
        [*daemon.engine.enter, sys.executable, "-m", "tests.host.crash", "--config", str(daemon.config), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        output, _ = program.communicate(timeout=seconds)
    finally:
        # Its daemons die with it; what it leaves goes with the drill's daemon.
        program.terminate()
        program.wait()
    print(output)
    return program.returncode, output.splitlines()


@pytest.mark.timeout(900)
async def test_a_sample_of_crash_points_is_survived(make_daemon: DaemonMaker) -> None:
    status, lines = _crash(make_daemon(), seconds=870)
    found = re.fullmatch(r"crash points: (\d+)/(\d+) survived", lines[-1])
    assert found, lines[-1]
    survived, points = map(int, found.groups())
    assert survived == points > 40
    visited = {line.partition(":")[0] for line in lines if re.search(r": \d+/\d+ points, ", line)}
    assert visited == {scenario.name for scenario in SCENARIOS} - set(LEFT_OUT)
    assert status == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("control", CONTROLS)
async def test_a_protection_that_is_taken_away_is_missed(make_daemon: DaemonMaker, control: str) -> None:
    status, lines = _crash(make_daemon(), "--control", control, seconds=170)
    assert status == 0, lines
