"""Owns counting against several limits at once: all of them are charged, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from facade.clock import Clock
from facade.limits.rules import Rule
from facade.limits.table import SharedTable
from facade.limits.windows import Window

__all__ = ["Charge", "LimitExceeded", "Limits", "Taken"]

Charge = tuple[Rule, bytes]
"""What is counted, and whose it is."""


class LimitExceeded(Exception):
    """Too often. After `seconds` the same may be tried again, if nothing else is counted meanwhile."""

    def __init__(self, rule: Rule, seconds: int) -> None:
        super().__init__(f"{rule.name.lower()}: again in {seconds} s")
        self.rule = rule
        self.seconds = seconds


class Taken:
    """What was charged. What turns out not to count is taken back."""

    def __init__(self, limits: Limits, charges: Iterable[Charge], at_ns: int) -> None:
        self._limits = limits
        self._charges = list(charges)
        self._at_ns = at_ns

    def take_back(self, *rules: Rule) -> None:
        """Undo the charges of these rules."""
        self._limits.undo([charge for charge in self._charges if charge[0] in rules], self._at_ns)
        self._charges = [charge for charge in self._charges if charge[0] not in rules]


class Limits:
    """Every limit of the facade, counted in the table that its workers share."""

    def __init__(self, table: SharedTable, windows: Mapping[Rule, Window], clock: Clock) -> None:
        self._table = table
        self._windows = windows
        self._clock = clock
        self.refused: Counter[Rule] = Counter()
        """How often this process has refused something, by the rule that it exceeded."""

    def take(self, *charges: Charge) -> Taken:
        """Charge all of these once. Raises LimitExceeded, with the longest of their waits, and charges none then.

        A refused attempt is not counted: whoever goes on trying does not put off the moment from which it succeeds.
        """
        now = self._clock.monotonic_ns()
        # Looked at first, so that what is refused for one key writes nothing about the others.
        self._refuse([(rule, self._table.wait_ns(rule, key, self._windows[rule], now)) for rule, key in charges])
        taken: list[Charge] = []
        for rule, key in charges:
            if wait := self._table.take(rule, key, self._windows[rule], now):
                # Another worker has taken the last one in between.
                self.undo(taken, now)
                self._refuse([(rule, wait)])
            taken.append((rule, key))
        return Taken(self, taken, now)

    def undo(self, charges: Iterable[Charge], taken_ns: int) -> None:
        """Take back what was charged at that moment."""
        for rule, key in charges:
            self._table.take_back(rule, key, self._windows[rule], taken_ns)

    def _refuse(self, waits: Iterable[tuple[Rule, int]]) -> None:
        rule, wait = max(waits, key=lambda found: found[1])
        if wait:
            self.refused[rule] += 1
            raise LimitExceeded(rule, -(-wait // 10**9))
