"""Whether a release is well: what is waited for, what is not, and what is told of one that is not.

systemd and the journal are programs of the tests here; tests/hostlab/test_7_upgrades.py has the real ones.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.deploy.program import inside

pytestmark = pytest.mark.integration

# Each look at the facade counts one more end of it.
SYSTEMCTL = """#!/bin/sh
case "$1" in
restart)
  echo "Unit $2 is masked."
  exit "$(cat {home}/restart)"
  ;;
show)
  ends=$(cat {home}/ends.$3 2>/dev/null || echo 3)
  echo "InvocationID=$ends"
  echo "NRestarts=$ends"
  [ "$3" != medforge-facade.service ] || echo $((ends + 1)) >{home}/ends.$3
  ;;
esac
"""
JOURNALCTL = """#!/bin/sh
for last; do :; done
[ "$last" != _SYSTEMD_UNIT=medforge-facade.service ] || printf 'cannot\\033[31m serve\\n'
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
        program = tmp_path / name
        program.write_text(text.replace("{home}", str(tmp_path)))
        program.chmod(0o755)
    (tmp_path / "restart").write_text("0")
    return tmp_path


def tell(home: Path, code: str) -> subprocess.CompletedProcess[str]:
    return inside(
        "import os, wellness; from common import Failure; from pathlib import Path; from releases import Release\n"
        f"os.environ['PATH'] = {str(home)!r} + ':' + os.environ['PATH']\n"
        f"try:\n    {code}\n"
        "except Failure as error:\n    print(error)\n"
    )


def test_a_program_that_does_not_start_is_told_with_its_last_words(home: Path) -> None:
    (home / "restart").write_text("1")
    done = tell(home, "wellness.restart('medforge-facade.service')")
    # What it said does nothing to a terminal.
    assert done.stdout == (
        "medforge-facade.service does not start\n  medforge-facade.service said last: cannot [31m serve\n"
    ), done.stderr
    (home / "restart").write_text("0")
    assert tell(home, "wellness.restart('medforge-facade.service')").stdout == ""


def test_a_program_that_has_said_nothing_is_told_with_what_systemd_says(home: Path) -> None:
    (home / "restart").write_text("1")
    # The other one has; that is of no help here.
    done = tell(home, "wellness.restart('medforged.service')")
    assert done.stdout.startswith("medforged.service does not start: "), done.stderr
    assert "Unit medforged.service is masked." in done.stdout
    assert "said last" not in done.stdout


def test_a_program_that_ends_again_and_again_is_not_waited_for(home: Path) -> None:
    done = tell(home, "wellness.await_well(Release(Path('/nonexistent/1.0-00000000')), None)")
    # Three ends were there before: they are not the release's.
    assert done.stdout.startswith("medforge-facade.service ended 5 times\n"), done.stderr
    assert int((home / "ends.medforge-facade.service").read_text()) == 9
