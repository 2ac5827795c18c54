"""A clock that stands still until it is told to go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["SetClock"]


class SetClock:
    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic_ns = 10**15

    def now(self) -> datetime:
        return self._now

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def monotonic(self) -> float:
        return self._monotonic_ns / 10**9

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds=seconds)

    def advance(self, **delta: float) -> None:
        """Time passes."""
        past = timedelta(**delta)
        self._now += past
        self._monotonic_ns += past // timedelta(microseconds=1) * 1000

    def set(self, now: datetime) -> None:
        """Somebody sets the clock; no time passes."""
        self._now = now
