"""Owns the arithmetic of a sliding window: how often something has happened lately, and when it may happen again.

A window is cut into slices of equal length, and what happened is counted slice by slice. The slice that is going on and
the `SLICES` before it are looked at: never less than the window, so that no stretch of time of the window's length
holds more than the limit, and at most a slice more. Times are whole nanoseconds of a clock that nobody sets; so a wait
that is told is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

__all__ = ["COUNTS", "LIMIT_MAX", "SLICES", "Counter", "Window"]

SLICES = 20
# The slices of a window, and the one that is going on.
COUNTS = SLICES + 1
# What a counter's 16 bits hold.
LIMIT_MAX = 2**16 - 1


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` in any stretch of so many seconds."""

    limit: int
    seconds: float

    @property
    def slice_ns(self) -> int:
        return -(-round(self.seconds * 1e9) // SLICES)

    def slice_at(self, now_ns: int) -> int:
        """The number of the slice in which this moment lies."""
        return now_ns // self.slice_ns

    def wait_ns(self, counter: Counter, now_ns: int) -> int:
        """How long until once more fits; 0 when it does now. Exact, if nothing is counted meanwhile."""
        # Another worker may have counted in the next slice already.
        now = max(self.slice_at(now_ns), counter.newest)
        surplus = counter.total(now) - self.limit + 1
        if surplus <= 0:
            return 0
        numbers = range(now - SLICES, now + 1)
        left = accumulate(counter.at(number) for number in numbers)
        # The first slice whose going makes room; it is looked at until the slice COUNTS later begins.
        last = next(number for number, gone in zip(numbers, left, strict=True) if gone >= surplus)
        return (last + COUNTS) * self.slice_ns - now_ns


@dataclass(slots=True)
class Counter:
    """What was counted in the slices up to `newest`; slice n stands at n modulo COUNTS."""

    newest: int
    counts: list[int]

    @classmethod
    def fresh(cls, newest: int) -> Counter:
        return cls(newest, [0] * COUNTS)

    def at(self, number: int) -> int:
        """The count of a slice; 0 for one that is no longer kept, or not yet."""
        return self.counts[number % COUNTS] if self.newest - COUNTS < number <= self.newest else 0

    def total(self, now: int) -> int:
        """All that counts while slice `now` is going on."""
        if now == self.newest:
            return sum(self.counts)
        return sum(self.at(number) for number in range(now - SLICES, now + 1))

    def add(self, now: int) -> None:
        """Count once more, in slice `now`, which is not before `newest`."""
        for number in range(max(self.newest + 1, now - SLICES), now + 1):
            self.counts[number % COUNTS] = 0
        self.newest = now
        self.counts[now % COUNTS] += 1

    def take_back(self, number: int) -> None:
        """Undo one that was counted in this slice, if it is still kept."""
        if self.at(number) > 0:
            self.counts[number % COUNTS] -= 1
