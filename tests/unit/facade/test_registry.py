"""What the registry knows after what it has heard: order, loss, resumption, whole lists, other databases."""

from __future__ import annotations

from uuid import UUID, uuid4

import msgspec
import pytest

from facade.sessions.registry import Registry
from medforged.client import DaemonError
from medforged.contract.errors import ErrorCode
from medforged.contract.sessions import Session, SessionStatus
from medforged.contract.watch import Heartbeat, SessionChanged, Synced
from tests.fakes.daemon import aged, make_session

pytestmark = pytest.mark.unit

EPOCH = uuid4()
LOST = DaemonError(ErrorCode.UNREACHABLE, "cannot reach the daemon: scripted")


def hear(registry: Registry, *sessions: Session, revision: int = 0, relist: bool = True, epoch: UUID = EPOCH) -> None:
    """A stream's beginning: the sessions, and that this is all."""
    for session in sessions:
        registry.hear(SessionChanged(session=session))
    registry.hear(Synced(epoch=epoch, revision=revision, relist=relist))


def changed(session: Session, status: SessionStatus, revision: int) -> Session:
    return msgspec.structs.replace(session, status=status, revision=revision)


def test_nothing_is_known_before_the_first_list() -> None:
    registry = Registry()
    assert (registry.known, registry.live) == (False, False)
    hear(registry)
    assert (registry.known, registry.live) == (True, True)


def test_changes_are_followed_to_the_end() -> None:
    registry = Registry()
    session = make_session(status=SessionStatus.STARTING, revision=1)
    hear(registry, session, revision=1)
    registry.hear(SessionChanged(session=changed(session, SessionStatus.RUNNING, 2)))
    found = registry.by_slug(session.slug)
    assert found is not None
    assert found.status is SessionStatus.RUNNING
    registry.hear(SessionChanged(session=changed(session, SessionStatus.STOPPED, 3)))
    assert registry.by_slug(session.slug) is None
    assert registry.by_id(session.id) is None


def test_an_answer_that_was_overtaken_changes_nothing() -> None:
    registry = Registry()
    session = make_session(revision=1)
    hear(registry, session, revision=1)
    stopping = changed(session, SessionStatus.STOPPING, 2)
    registry.hear(SessionChanged(session=stopping))
    registry.apply(session)
    assert registry.by_id(session.id) == stopping
    registry.hear(SessionChanged(session=changed(session, SessionStatus.STOPPED, 3)))
    registry.apply(stopping)
    assert registry.by_id(session.id) is None


def test_what_is_known_stays_while_the_daemon_is_away() -> None:
    registry = Registry()
    session = make_session()
    hear(registry, session)
    registry.hear(LOST)
    assert (registry.live, registry.known, registry.lost) == (False, True, LOST.message)
    assert registry.by_slug(session.slug) == session


def test_a_resumption_changes_only_what_it_tells() -> None:
    registry = Registry()
    kept, ended = make_session(revision=1), make_session(revision=2)
    hear(registry, kept, ended, revision=2)
    registry.hear(LOST)
    hear(registry, changed(ended, SessionStatus.ERROR, 3), revision=3, relist=False)
    assert registry.by_id(kept.id) == kept
    assert registry.by_id(ended.id) is None


def test_a_whole_list_makes_forget_the_rest() -> None:
    registry = Registry()
    kept, gone = make_session(revision=1), make_session(revision=2)
    hear(registry, kept, gone, revision=2)
    registry.hear(LOST)
    hear(registry, kept, revision=9)
    assert registry.by_id(kept.id) == kept
    assert registry.by_slug(gone.slug) is None


def test_a_list_that_broke_off_does_not_count() -> None:
    """What an incomplete list told may have ended by the time of the next one."""
    registry = Registry()
    session = make_session(revision=1)
    registry.hear(SessionChanged(session=session))
    registry.hear(LOST)
    hear(registry, revision=5)
    assert registry.by_id(session.id) is None


def test_an_answer_newer_than_the_list_is_kept() -> None:
    registry = Registry()
    hear(registry, revision=1)
    registry.hear(LOST)
    created = make_session(revision=7)
    registry.apply(created)
    hear(registry, revision=6)
    assert registry.by_id(created.id) == created


def test_another_database_replaces_everything() -> None:
    registry = Registry()
    session = make_session(status=SessionStatus.STOPPING, revision=100)
    other, ended = make_session(revision=101), make_session(revision=102)
    hear(registry, session, other, ended, revision=102)
    registry.hear(SessionChanged(session=changed(ended, SessionStatus.STOPPED, 103)))
    registry.hear(LOST)
    restored = changed(session, SessionStatus.RUNNING, 3)
    revived = changed(ended, SessionStatus.RUNNING, 4)
    hear(registry, restored, revived, revision=4, epoch=uuid4())
    assert registry.by_id(session.id) == restored
    assert registry.by_slug(ended.slug) == revived
    assert registry.by_id(other.id) is None


def test_an_older_copy_of_the_database_replaces_everything() -> None:
    registry = Registry()
    session, later = make_session(status=SessionStatus.STOPPING, revision=8), make_session(revision=9)
    hear(registry, session, revision=8)
    registry.hear(SessionChanged(session=later))
    registry.hear(LOST)
    restored = changed(session, SessionStatus.RUNNING, 5)
    hear(registry, restored, revision=6)
    assert registry.by_id(session.id) == restored
    assert registry.by_id(later.id) is None


def test_heartbeats_tell_of_the_recovery_loop() -> None:
    registry = Registry()
    hear(registry)
    registry.hear(Heartbeat(revision=0, recovery_alive=False))
    assert not registry.recovery_alive
    registry.hear(Heartbeat(revision=0, recovery_alive=True))
    assert registry.recovery_alive


def test_newest_of_is_the_users_own_newest() -> None:
    registry = Registry()
    user = uuid4()
    newest = make_session(user)
    hear(registry, aged(make_session(user), 10), newest, aged(make_session(user), 5), make_session())
    assert registry.newest_of(user) == newest
    assert registry.newest_of(uuid4()) is None
