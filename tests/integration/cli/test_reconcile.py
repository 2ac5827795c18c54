"""`medforgectl reconcile`: what did not match, what was done about it, and what it ends with."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from medforged.contract.errors import ErrorCode
from medforged.contract.orphans import Orphan, OrphanKind
from medforged.contract.sessions import ReconcileAction, ReconcileOutcome, ReconcileReport, SessionStatus
from tests.integration.cli.program import Medforgectl
from tests.integration.cli.scripted import ScriptedDaemon

pytestmark = pytest.mark.integration

SETTLED = [
    outcome for outcome in ReconcileOutcome if outcome not in (ReconcileOutcome.PENDING, ReconcileOutcome.FAILED)
]


def action(outcome: ReconcileOutcome, **changes: Any) -> ReconcileAction:
    values = {
        "subject": "mf-session-abcd2345",
        "session_id": None,
        "slug": "abcd2345",
        "found": "exited",
        "outcome": outcome,
    }
    return ReconcileAction(**{**values, **changes})


def test_everything_matches(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.add(SessionStatus.STOPPED)
    daemon.add()
    done = medforgectl("reconcile")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Looked at 1 session in 0.02 s: everything matches.\n"


def test_what_was_put_right_is_shown(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.mismatches = [
        action(ReconcileOutcome.ENDED, message="container exited unexpectedly"),
        action(ReconcileOutcome.ENDED, subject="mf-session-efgh6723", found="missing"),
        action(ReconcileOutcome.RELEASED, subject="GPU 3", slug=None, found="in quarantine"),
    ]
    daemon.orphans = [Orphan(kind=OrphanKind.CONTAINER, name=name, reason="it is nobody's") for name in "ab"]
    for _ in range(7):
        daemon.add()
    done = medforgectl("reconcile")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(maxsplit=3) for line in done.stdout.splitlines()[:3]] == [
        ["SUBJECT", "FOUND", "OUTCOME", "MESSAGE"],
        ["mf-session-abcd2345", "exited", "ended", "container exited unexpectedly"],
        ["mf-session-efgh6723", "missing", "ended"],
    ]
    assert done.stdout.splitlines()[3:] == [
        "GPU 3                in quarantine  released",
        "",
        "Looked at 7 sessions in 0.02 s: 2 ended, 1 released, nothing else to do; 2 orphans, see medforgectl cleanup.",
    ]


@pytest.mark.parametrize("outcome", SETTLED)
def test_what_is_settled_is_no_failure(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, outcome: ReconcileOutcome
) -> None:
    daemon.mismatches = [action(outcome)]
    assert medforgectl("reconcile").returncode == 0


@pytest.mark.parametrize("outcome", [ReconcileOutcome.PENDING, ReconcileOutcome.FAILED])
def test_what_is_not_settled_ends_with_one(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, outcome: ReconcileOutcome
) -> None:
    daemon.mismatches = [action(ReconcileOutcome.ENDED), action(outcome, message="the pool is suspended")]
    done = medforgectl("reconcile")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[2].split(maxsplit=3)[2:] == [outcome, "the pool is suspended"]
    assert done.stdout.endswith(f": 1 ended, 1 {outcome}, the daemon goes on by itself.\n")
    assert medforgectl("reconcile", "-o", "json").returncode == 1


def test_json_is_the_contracts_own(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add()
    daemon.mismatches = [action(ReconcileOutcome.RUNNING, session_id=session.id, found="running")]
    done = medforgectl("reconcile", "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    told = msgspec.json.decode(done.stdout, type=ReconcileReport)
    assert told == ReconcileReport(seconds=0.021, sessions=1, actions=daemon.mismatches, orphans=0, problems=[])


def test_what_others_wrote_is_shown_and_not_obeyed(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.mismatches = [action(ReconcileOutcome.ENDED, subject="a\x1b[2Jb", found="\x9b31m", message="x\ny\u202e")]
    done = medforgectl("reconcile")
    assert r"a\x1b[2Jb  \x9b31m  ended    x\x0ay\u202e" in done.stdout.splitlines()


def test_an_engine_that_does_not_answer(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.refuse("sessions.reconcile", ErrorCode.HOST_FAILED, "cannot list containers: Docker does not answer")
    done = medforgectl("reconcile")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("medforgectl: cannot list containers: Docker does not answer (correlation id ")
