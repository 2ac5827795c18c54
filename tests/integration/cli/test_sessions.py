"""`medforgectl sessions ls` and `show`: which sessions are found, and how they are shown."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest

from cli.sessions import ACTIVE
from medforged.contract.sessions import SessionPage, SessionResult, SessionStatus, SessionStep
from tests.integration.cli.program import Medforgectl
from tests.integration.cli.scripted import ScriptedDaemon

pytestmark = pytest.mark.integration


def slugs(output: str) -> list[str]:
    return [line.split()[0] for line in output.splitlines()[1:]]


def test_only_active_sessions_unless_told_otherwise(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    every = {status: daemon.add(status).slug for status in SessionStatus}
    active = [every[SessionStatus.STOPPING], every[SessionStatus.RUNNING], every[SessionStatus.STARTING]]
    assert slugs(medforgectl("sessions", "ls").stdout) == active
    assert slugs(medforgectl("sessions", "ls", "--all").stdout) == list(reversed(every.values()))
    chosen = medforgectl("sessions", "ls", "--status", "error", "--status", "running").stdout
    assert slugs(chosen) == [every[SessionStatus.ERROR], every[SessionStatus.RUNNING]]


def test_one_users_sessions(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    mine = uuid4()
    daemon.add()
    expected = daemon.add(user_id=mine)
    assert slugs(medforgectl("sessions", "ls", "--user", str(mine)).stdout) == [expected.slug]


def test_a_limit_is_kept_and_told(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    newest_last = [daemon.add().slug for _ in range(4)]
    done = medforgectl("sessions", "ls", "--limit", "3")
    assert slugs(done.stdout) == newest_last[:0:-1]
    assert done.stderr == "There are more than these 3: raise --limit to see them.\n"
    assert medforgectl("sessions", "ls", "--limit", "4").stderr == ""


def test_more_than_one_answer_of_the_socket(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    for _ in range(1203):
        daemon.add(SessionStatus.STOPPED)
    done = medforgectl("sessions", "ls", "--all", "--limit", "1201", "-o", "json")
    page = msgspec.json.decode(done.stdout, type=SessionPage)
    newest_first = sorted(daemon.sessions.values(), key=lambda session: session.created_at, reverse=True)
    assert page == SessionPage(sessions=newest_first[:1201], has_more=True)
    assert [call.params.limit for call in daemon.called("sessions.list")] == [500, 500, 201]


def test_show_by_id_and_by_slug(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    ended = daemon.add(SessionStatus.ERROR, slug="ended234", error_message="container exited \x1b[2J unexpectedly")
    daemon.add(SessionStatus.RUNNING)
    by_id = medforgectl("sessions", "show", str(ended.id))
    by_slug = medforgectl("sessions", "show", "ended234")
    assert by_id.returncode == by_slug.returncode == 0
    assert by_id.stdout == by_slug.stdout
    shown = dict(line.split(maxsplit=1) for line in by_id.stdout.splitlines())
    assert shown["id"] == str(ended.id)
    assert shown["message"] == r"container exited \x1b[2J unexpectedly"
    assert shown["gpu"] == f"1 ({ended.gpu_uuid})"
    assert shown["ended"] == "2026-02-17T05:58:24Z"


def test_an_active_session_is_found_without_reading_the_history(
    daemon: ScriptedDaemon, medforgectl: Medforgectl
) -> None:
    for _ in range(600):
        daemon.add(SessionStatus.STOPPED)
    running = daemon.add(slug="abcd2345")
    done = medforgectl("sessions", "show", "abcd2345", "-o", "json")
    assert msgspec.json.decode(done.stdout, type=SessionResult).session == running
    assert len(daemon.called("sessions.list")) == 1


def test_a_slug_far_down_the_history(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    oldest = daemon.add(SessionStatus.STOPPED, slug="ended234")
    for _ in range(700):
        daemon.add(SessionStatus.STOPPED)
    done = medforgectl("sessions", "show", "ended234", "-o", "json")
    assert msgspec.json.decode(done.stdout, type=SessionResult).session == oldest


@pytest.mark.parametrize("status", list(SessionStatus))
def test_the_step_is_shown_while_a_session_is_active(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, status: SessionStatus
) -> None:
    session = daemon.add(status, slug="abcd2345", step=SessionStep.SNAPSHOT)
    shown = [line.split() for line in medforgectl("sessions", "show", "abcd2345").stdout.splitlines()]
    assert (["step", "snapshot"] in shown) is (status in ACTIVE)
    told = medforgectl("sessions", "show", "abcd2345", "-o", "json").stdout
    assert msgspec.json.decode(told, type=SessionResult).session == session
