"""Owns the figures: how many points were met and survived, what failed, and how that is told to people."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.invariants import Violation

__all__ = ["Failure", "State", "Tally", "tell"]


@dataclass(frozen=True, slots=True)
class State:
    """What a crash left, in a directory; `key` is the same for states that differ in nothing that matters."""

    key: str
    directory: Path
    scenario: str
    after: str


@dataclass(slots=True)
class Failure:
    """A point that was not survived, the daemons' last words, and everything as it was then."""

    where: str
    violations: list[Violation]
    log: str
    state: str

    def tells(self, invariant: str | None) -> bool:
        return any(violation.invariant == invariant for violation in self.violations)


@dataclass(slots=True)
class Tally:
    """How many points there are, which of them were not met again, what failed, and which states were left.

    `survived` includes the `known` ones: a crash there leaves a state that another crash has left before, so no daemon
    is started from it once more. `seconds` is the time that it took.
    """

    scenario: str
    begins: int = 1
    points: int = 0
    survived: int = 0
    known: int = 0
    killed: int = 0
    seconds: float = 0.0
    met: set[str] = field(default_factory=set)
    missed: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count another one of the same scenario in."""
        self.points += other.points
        self.survived += other.survived
        self.known += other.known
        self.seconds += other.seconds
        self.killed += other.killed
        self.met |= other.met
        self.missed += other.missed
        self.failures += other.failures
        self.states += other.states
        self.begins += other.begins

    def failed(self, invariant: str | None) -> bool:
        """Whether this invariant has failed somewhere."""
        return any(failure.tells(invariant) for failure in self.failures)


def tell(tally: Tally) -> None:
    """Print what was not survived: the first with the daemons' last words and everything as it was."""
    for label in tally.missed:
        print(f"NOT SURVIVED: {tally.scenario}: {label}: met once and not again, so nobody knows")
    for number, failure in enumerate(tally.failures):
        print(f"NOT SURVIVED: {tally.scenario}: {failure.where}")
        for violation in failure.violations:
            print(f"  {violation}")
        if not number:
            print("  left:", *failure.state.splitlines(), sep="\n    ")
            print("  the daemons said:", *failure.log.splitlines()[-60:], sep="\n    ")
