"""What ZFS says is understood, on recorded output."""

from __future__ import annotations

from pathlib import Path

import pytest

from medforged.adapters.zfs.messages import classify
from medforged.adapters.zfs.problems import ZfsFailure, ZfsProblem, no_such_pool
from tests.fakes.process import Recording, load_recordings

pytestmark = pytest.mark.unit

FIXTURES = Path(__file__).parents[3] / "fixtures" / "zfs"
FAILED = [
    pytest.param(recording, id=f"{file.stem} {' '.join(recording.argv[:2])} {recording.means} {number}")
    for file in sorted(FIXTURES.glob("*.json"))
    for number, recording in enumerate(load_recordings(file))
    if recording.status
]


@pytest.mark.parametrize("recording", FAILED)
def test_recorded_messages(recording: Recording) -> None:
    assert recording.means is not None
    assert classify(recording.stderr) is ZfsProblem(recording.means)


def test_the_recordings_hold_every_problem_that_zfs_tells() -> None:
    recorded = {parameter.values[0].means for parameter in FAILED}
    # These are about starting a command, about its time, and about what nobody has seen yet.
    assert recorded == set(ZfsProblem) - {ZfsProblem.NOT_INSTALLED, ZfsProblem.STUCK, ZfsProblem.OTHER}


# Worded from the table in libzfs_util.c (libzfs_error_description) of OpenZFS 2.x; not recorded in these words.
@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("cannot create 'tank/a': dataset is read-only", ZfsProblem.READ_ONLY),
        ("cannot create 'tank/a': permission denied", ZfsProblem.DENIED),
        ("/dev/zfs and /proc/self/mounts are required.\nTry running 'udevadm trigger'", ZfsProblem.UNREACHABLE),
        ("cannot set property for 'tank/a': size is less than current used or reserved space", ZfsProblem.BAD_PROPERTY),
        ("something quite new", ZfsProblem.OTHER),
        ("", ZfsProblem.OTHER),
    ],
)
def test_worded_messages(said: str, problem: ZfsProblem) -> None:
    assert classify(said) is problem


@pytest.mark.parametrize("problem", [problem for problem in ZfsProblem if problem is not ZfsProblem.EXISTS])
def test_every_problem_has_its_remedy(problem: ZfsProblem) -> None:
    said, semicolon, remedy = ZfsFailure(problem, "ZFS said so").advice.partition("; ")
    assert (said, semicolon) == ("ZFS said so", "; ")
    assert len(remedy) > 15


def test_a_missing_pool_is_told_with_those_that_there_are() -> None:
    assert no_such_pool("tank", ["rpool", "data"]).startswith("there is no pool tank (pools: data, rpool); make it")
    assert "(pools: none)" in no_such_pool("tank", [])
