"""What is counted of sessions, from the records that the services publish."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from medforged.domain.sessions import Session, SessionStatus, StopReason, Tier
from medforged.exposition import Durations
from medforged.metrics.sessions import SessionTally, Started
from tests.fakes.clock import SetClock

pytestmark = pytest.mark.unit

STARTING = Session(
    id=uuid4(),
    user_id=uuid4(),
    tier=Tier.PUBLIC,
    pack_id=uuid4(),
    status=SessionStatus.STARTING,
    gpu_id=3,
    gpu_uuid="GPU-3",
    slug="abcd2345",
    workspace_zfs="tank/w",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    revision=10,
)


class Story:
    """A tally that hears one session's records, and the time that passes between them."""

    def __init__(self) -> None:
        self.clock = SetClock()
        self.tally = SessionTally(self.clock)
        self.session = STARTING

    def becomes(self, status: SessionStatus, ending: StopReason | None = None, *, after: float = 0.0) -> None:
        self.clock.advance(seconds=after)
        self.session = replace(self.session, status=status, ending=ending, revision=self.session.revision + 1)
        self.tally.note(self.session)


def seconds(durations: Durations) -> tuple[float, float]:
    """How many there were, and their sum."""
    buckets, sum_ = durations.buckets()
    return buckets[-1][1], sum_


def test_a_session_that_runs_and_is_stopped() -> None:
    story = Story()
    story.tally.note(STARTING)
    assert story.tally.by_status() == {
        SessionStatus.STARTING: 1,
        SessionStatus.RUNNING: 0,
        SessionStatus.STOPPING: 0,
    }
    assert story.tally.held_gpus() == {3}
    story.becomes(SessionStatus.STARTING, after=1)
    story.becomes(SessionStatus.RUNNING, after=2)
    story.becomes(SessionStatus.STOPPING, StopReason.REQUESTED, after=100)
    story.becomes(SessionStatus.STOPPING, StopReason.REQUESTED, after=4)
    story.becomes(SessionStatus.STOPPED, StopReason.REQUESTED, after=5)
    assert seconds(story.tally.creates[Started.RUNNING]) == (1, 3)
    assert seconds(story.tally.stops[StopReason.REQUESTED]) == (1, 9)
    assert +story.tally.ends == {StopReason.REQUESTED: 1}
    assert sum(story.tally.by_status().values()) == 0
    assert (story.tally.held_gpus(), story.tally.revision) == (frozenset(), 15)


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [(StopReason.CREATE_FAILED, Started.FAILED), (StopReason.REQUESTED, Started.STOPPED)],
)
def test_a_session_that_never_ran(ending: StopReason, outcome: Started) -> None:
    story = Story()
    story.tally.note(STARTING)
    story.becomes(SessionStatus.STOPPING, ending, after=7)
    story.becomes(SessionStatus.ERROR, ending, after=1)
    assert {which: seconds(durations)[0] for which, durations in story.tally.creates.items()} == {
        **dict.fromkeys(Started, 0),
        outcome: 1,
    }
    assert seconds(story.tally.creates[outcome]) == (1, 7)


def test_the_reason_that_counts_is_the_last_one() -> None:
    story = Story()
    story.tally.note(STARTING)
    story.becomes(SessionStatus.RUNNING)
    story.becomes(SessionStatus.STOPPING, StopReason.REQUESTED)
    story.becomes(SessionStatus.ERROR, StopReason.SNAPSHOT_FAILED, after=2)
    assert +story.tally.ends == {StopReason.SNAPSHOT_FAILED: 1}
    assert seconds(story.tally.stops[StopReason.SNAPSHOT_FAILED]) == (1, 2)


def test_what_began_in_an_earlier_life_has_no_duration_but_an_end() -> None:
    story = Story()
    story.tally.begin([replace(STARTING, status=SessionStatus.STOPPING)], revision=40)
    assert story.tally.by_status()[SessionStatus.STOPPING] == 1
    story.becomes(SessionStatus.STOPPED, StopReason.REQUESTED, after=3)
    assert +story.tally.ends == {StopReason.REQUESTED: 1}
    assert seconds(story.tally.stops[StopReason.REQUESTED]) == (0, 0)
    assert story.tally.revision == 40


def test_a_record_that_was_overtaken_changes_nothing() -> None:
    story = Story()
    story.tally.note(STARTING)
    story.becomes(SessionStatus.RUNNING)
    stale = story.session
    story.becomes(SessionStatus.STOPPING, StopReason.REQUESTED)
    story.tally.note(stale)
    assert story.tally.by_status()[SessionStatus.STOPPING] == 1
    story.becomes(SessionStatus.STOPPED, StopReason.REQUESTED)
    story.tally.note(stale)
    assert sum(story.tally.by_status().values()) == 0
    assert +story.tally.ends == {StopReason.REQUESTED: 1}
