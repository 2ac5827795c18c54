"""Owns how MedForge's programs write their events: structlog, one line each on standard error.

A leaf module that daemon and facade share. `json` is for machines and files, `console` for a person's terminal; `auto`
takes the terminal's when there is one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

__all__ = ["LogFormat", "configure"]

LogFormat = Literal["auto", "json", "console"]

# Whatever a caller passes under these names never reaches a log.
_SECRET_KEYS = frozenset(
    {"password", "current_password", "new_password", "token", "cookie", "set_cookie", "authorization"}
)


def configure(log_format: LogFormat = "auto", level: int = logging.INFO, **always: object) -> None:
    """Set up structlog and the standard library's logging for this process; the last call wins.

    Every event carries `always`: which one of several processes speaks.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
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
    if console:
        shared.remove(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries that use the standard library's logging end in the same stream and form.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in _SECRET_KEYS & event.keys():
        event[key] = "[redacted]"
    return event
