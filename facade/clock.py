"""Owns how the facade tells the time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """The time, so that tests can set it."""

    def now(self) -> datetime:
        """Aware, in UTC. An operator or NTP may set it, forward and back."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since some moment that is the same for all processes of a host; nobody sets it."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()
