"""What the programs write: one line for each event, whole, and without secrets."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from medforged import logs

pytestmark = pytest.mark.unit


class Stream(io.StringIO):
    """Keeps each write apart, as a file that several processes write to would get it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)


@contextlib.contextmanager
def configured(log_format: logs.LogFormat, **always: object) -> Iterator[Stream]:
    """What is written meanwhile."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with contextlib.redirect_stderr(Stream()) as made:
            logs.configure(log_format, **always)
            yield made
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_event_is_one_write(log_format: logs.LogFormat) -> None:
    """Else the lines of several workers run into each other."""
    with configured(log_format) as stream:
        structlog.get_logger("x").info("a.b", key="value\nof two lines")
        logging.getLogger("library").warning("something")
    assert [text.count("\n") for text in stream.writes] == [1, 1]
    assert all(text.endswith("\n") for text in stream.writes)


def test_secrets_stay_out() -> None:
    with configured("json", worker=2) as stream:
        structlog.get_logger("x").info("a.b", password="geheim", token="geheim", harmless="seen")
    (line,) = stream.writes
    told = json.loads(line)
    assert "geheim" not in line
    assert (told["event"], told["worker"], told["harmless"]) == ("a.b", 2, "seen")
