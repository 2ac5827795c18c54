"""What the journal is sent: fields that say what the event says, and nothing that a value could add to them."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medforged import journald

pytestmark = pytest.mark.unit

# Halves of surrogate pairs among them: JSON can bring them, and no event may be lost for one.
VALUES = st.text(st.characters(), max_size=40)
EVENTS = st.dictionaries(st.text(max_size=80), VALUES | st.integers() | st.none(), max_size=8)


def parsed(entry: bytes) -> Iterator[tuple[str, bytes]]:
    """As the journal reads it."""
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, assigned, value = line.partition(b"=")
        if assigned:
            yield name.decode(), value
            entry = rest
        else:
            (length,) = struct.unpack("<Q", rest[:8])
            yield name.decode(), rest[8 : 8 + length]
            assert rest[8 + length : 9 + length] == b"\n"
            entry = rest[9 + length :]


@given(EVENTS)
@example({"event": "a", "name": "\ud800"})
@example({"event": "\ud800"})
def test_what_is_read_is_what_was_said(event: dict[str, object]) -> None:
    fields = journald.fields_of(event, "medforged")
    assert dict(parsed(journald.encoded(fields))) == {name: value.encode() for name, value in fields.items()}


@given(EVENTS)
def test_no_key_becomes_a_field_that_the_journal_trusts_or_reads(event: dict[str, object]) -> None:
    ours = {"MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER", "EVENT"}
    theirs = {"SESSION_ID", "USER_ID", "SLUG", "GPU_ID", "CORRELATION_ID"}
    for name in journald.fields_of(event, "medforged"):
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name)
        assert name in ours | theirs or name.startswith("MEDFORGE_")


def test_a_session_is_found_by_its_fields() -> None:
    fields = journald.fields_of(
        {"event": "session.stop", "level": "info", "slug": "abcd2345", "gpu_id": 3, "session_id": "s", "user_id": "u",
         "correlation_id": "c", "reason": "requested", "timestamp": "now", "step": None},
        "medforged",
    )  # fmt: skip
    assert fields == {
        "SLUG": "abcd2345",
        "GPU_ID": "3",
        "SESSION_ID": "s",
        "USER_ID": "u",
        "CORRELATION_ID": "c",
        "MEDFORGE_REASON": "requested",
        "MESSAGE": "session.stop slug=abcd2345 gpu_id=3 session_id=s user_id=u correlation_id=c reason=requested",
        "MESSAGE_ID": journald.message_id("session.stop"),
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "medforged",
        "EVENT": "session.stop",
    }


def test_a_value_cannot_add_fields() -> None:
    evil = "x\nPRIORITY=0\n_UID=0\nMESSAGE=all is well"
    entry = journald.encoded(journald.fields_of({"event": "a", "level": "warning", "name": evil}, "medforged"))
    read = list(parsed(entry))
    assert [value for name, value in read if name == "PRIORITY"] == [b"4"]
    assert not [name for name, _ in read if name.startswith("_")]
    assert dict(read)["MEDFORGE_NAME"] == evil.encode()
    assert b"\n" not in dict(read)["MESSAGE"]


def test_a_traceback_follows_the_message() -> None:
    fields = journald.fields_of({"event": "a", "exception": "Traceback:\n  x", "level": "error"}, "medforged")
    assert fields["MESSAGE"] == "a\nTraceback:\n  x"
    assert fields["PRIORITY"] == "3"


def test_the_journal_is_known_by_where_standard_error_leads() -> None:
    status = os.fstat(2)
    assert journald.is_stderr({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    for other in (f"{status.st_dev}:{status.st_ino + 1}", "", "x", f"{status.st_dev}"):
        assert not journald.is_stderr({"JOURNAL_STREAM": other})
    assert not journald.is_stderr({})
