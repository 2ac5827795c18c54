"""Owns how MedForge's programs write their events: structlog, to systemd's journal or as a line on standard error.

A leaf module that daemon and facade share. `journal` gives each event fields of its own; what the journal does not take
at once becomes a line of JSON. `json` is for machines and files, `console` for a person's terminal. `auto` takes the
journal where standard error leads there, and the terminal's form on a terminal.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog

from medforged import journald

__all__ = ["LogFormat", "configure"]

LogFormat = Literal["auto", "journal", "json", "console"]

# Whatever a caller passes under these names never reaches a log.
_SECRET_KEYS = frozenset(
    {"password", "current_password", "new_password", "token", "cookie", "set_cookie", "authorization"}
)


def configure(
    log_format: LogFormat = "auto",
    level: int = logging.INFO,
    *,
    program: str = "medforged",
    journal: Path = journald.SOCKET,
    **always: object,
) -> None:
    """Set up structlog and the standard library's logging for this process; the last call wins.

    `program` is the journal's SYSLOG_IDENTIFIER and `journal` its socket. Every event carries `always`: which one of
    several processes speaks.
    """
    if log_format == "auto":
        log_format = "journal" if journald.is_stderr(os.environ) else "console" if sys.stderr.isatty() else "json"
    console = log_format == "console"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        lambda _logger, _method, event: {**always, **event},
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact,
    ]
    # Plain tracebacks: the default ones show the values of local variables, passwords among them.
    console_renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = console_renderer if console else structlog.processors.JSONRenderer()
    if log_format == "journal":
        renderer = _Journal(journald.JournalSocket(journal), program, renderer)
    if console:
        shared.remove(structlog.processors.format_exc_info)
    stream: Any = _Stream(sys.stderr)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # A line and its end in one write, so that those of several processes do not run into each other.
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    # Libraries that use the standard library's logging end in the same stream and form.
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


class _Journal:
    """Sends an event to the journal; what is left to be written is nothing, or the line where that failed."""

    def __init__(self, sink: journald.JournalSocket, program: str, line: Any) -> None:
        self._sink = sink
        self._program = program
        self._line = line

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        if self._sink.send(journald.fields_of(event, self._program)):
            return ""
        line: str = self._line(logger, method, event)
        return line


class _Stream:
    """Writes lines; what is left of an event that the journal has taken is an empty one, and not written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if text != "\n":
            self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in _SECRET_KEYS & event.keys():
        event[key] = "[redacted]"
    return event
