"""`medforgectl sessions stop`: what is stopped, what is waited for, and what it ends with."""

from __future__ import annotations

import signal

import msgspec
import pytest

from medforged.contract.errors import ErrorCode
from medforged.contract.sessions import SessionStatus
from tests.integration.cli.program import Medforgectl
from tests.integration.cli.scripted import WAIT_SECONDS, ScriptedDaemon

pytestmark = pytest.mark.integration


def test_waits_for_the_end_that_the_stream_tells(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(slug="abcd2345")
    with medforgectl.started("sessions", "stop", "abcd2345") as process:
        # Its stream has begun and it has asked once: from here on only the stream can tell it.
        daemon.wait_until(lambda: daemon.watchers == 1 and bool(daemon.called("sessions.get")))
        assert process.poll() is None
        ended = msgspec.structs.replace(daemon.sessions[session.id], status=SessionStatus.STOPPED)
        daemon.change(ended)
        out, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, out, err) == (0, "abcd2345 stopped\n", "")
    assert len(daemon.called("sessions.get")) == 1


def test_an_end_before_the_stream_begins_is_not_missed(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(slug="abcd2345")
    daemon.ends[session.id] = SessionStatus.STOPPED
    done = medforgectl("sessions", "stop", str(session.id))
    assert (done.returncode, done.stdout) == (0, "abcd2345 stopped\n")


def test_a_daemon_that_restarts_meanwhile(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(slug="abcd2345")
    with medforgectl.started("sessions", "stop", "abcd2345") as process:
        daemon.wait_until(lambda: daemon.watchers == 1 and bool(daemon.called("sessions.get")))
        daemon.stop()
        daemon.change(msgspec.structs.replace(daemon.sessions[session.id], status=SessionStatus.STOPPED))
        daemon.start()
        out, _ = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, out) == (0, "abcd2345 stopped\n")


def test_every_active_session(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.add(SessionStatus.STOPPED)
    active = [daemon.add(status) for status in (SessionStatus.STARTING, SessionStatus.RUNNING)]
    daemon.ends = {session.id: SessionStatus.STOPPED for session in active}
    done = medforgectl("sessions", "stop", "--all")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == sorted(f"{session.slug} stopped" for session in active)
    assert {call.params.session_id for call in daemon.called("sessions.stop")} == {session.id for session in active}


def test_no_wait_asks_and_leaves(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(slug="abcd2345")
    done = medforgectl("sessions", "stop", "--no-wait", "abcd2345")
    assert (done.returncode, done.stdout) == (0, "abcd2345 was asked to stop\n")
    assert daemon.sessions[session.id].status is SessionStatus.STOPPING
    assert daemon.watchers == 0


def test_one_that_had_ended_is_no_failure(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(SessionStatus.ERROR, slug="abcd2345")
    done = medforgectl("sessions", "stop", str(session.id), "abcd2345")
    assert (done.returncode, done.stdout) == (0, "abcd2345 had ended before (error)\n")
    assert len(daemon.called("sessions.stop")) == 1


def test_one_that_ends_in_error_is_a_failure(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(slug="abcd2345", error_message="snapshot failed: the pool is suspended")
    other = daemon.add()
    daemon.ends = {session.id: SessionStatus.ERROR, other.id: SessionStatus.STOPPED}
    done = medforgectl("sessions", "stop", "--all")
    assert done.returncode == 1
    assert f"{other.slug} stopped\n" in done.stdout
    assert done.stderr == ("medforgectl: session abcd2345 ended in error: snapshot failed: the pool is suspended\n")


def test_nothing_is_stopped_when_one_does_not_exist(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.add(slug="abcd2345")
    done = medforgectl("sessions", "stop", "abcd2345", "zzzz2222")
    assert done.returncode == 66
    assert done.stderr.startswith("medforgectl: cannot find session zzzz2222: no session has this slug;")
    assert not daemon.called("sessions.stop")


def test_one_that_cannot_be_asked_does_not_keep_the_others(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    both = [daemon.add() for _ in range(2)]
    daemon.refuse("sessions.stop", ErrorCode.SHUTTING_DOWN, "the daemon is stopping; try again")
    medforgectl.be_impatient()
    done = medforgectl("sessions", "stop", "--all")
    assert (done.returncode, done.stderr) == (75, "medforgectl: the daemon is stopping; try again\n")
    assert {call.params.session_id for call in daemon.called("sessions.stop")} == {session.id for session in both}


def test_a_timeout_leaves_the_daemon_to_it(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.add(slug="abcd2345")
    done = medforgectl("sessions", "stop", "--timeout", "0.3", "abcd2345")
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == (
        "medforgectl: cannot see the end of abcd2345 within 0.3 s: the daemon goes on; "
        "look again with medforgectl sessions ls\n"
    )


@pytest.mark.parametrize("arguments", [[], ["--all", "abcd2345"]])
def test_either_names_or_all(daemon: ScriptedDaemon, medforgectl: Medforgectl, arguments: list[str]) -> None:
    done = medforgectl("sessions", "stop", *arguments)
    assert done.returncode == 2
    assert "name the sessions to stop, or give --all for every active one" in done.stderr
    assert daemon.calls == []


def test_interrupted_while_waiting(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    session = daemon.add(slug="abcd2345")
    with medforgectl.started("sessions", "stop", "abcd2345") as process:
        daemon.wait_until(lambda: daemon.watchers == 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, out, err.strip()) == (130, "", "")
    assert daemon.sessions[session.id].status is SessionStatus.STOPPING
    daemon.wait_until(lambda: daemon.watchers == 0)
