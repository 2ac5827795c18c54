"""Owns one process's share of a run, and what it says afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from medforged.services.assembly import Makers
from tests.model.play import Violated
from tests.model.run import run, tallying

__all__ = ["Outcome", "share"]

# Of one run of Hypothesis: it remembers all that it has tried, and a fresh start costs little.
_STEPS_PER_RUN = 1000


@dataclass(frozen=True, slots=True)
class Outcome:
    """`seed` is the one of the share; `violated` and `story` say which invariant failed, and after what."""

    seed: int
    steps: Counter[str]
    ends: Counter[str]
    longest: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    violated: str | None = None
    story: str = ""

    @property
    def done(self) -> int:
        return self.steps.total()


def share(steps: int, seed: int, make: Makers | None = None, *, shrink: bool = True) -> Outcome:
    """At least so many steps, or as many as there are until an invariant fails; the same ones for the same seed."""
    with tallying() as tally:
        violated, story, runs = None, "", 0
        while violated is None and (left := steps - tally.steps.total()) > 0:
            try:
                run(tally, make or Makers(), steps=min(left, _STEPS_PER_RUN), from_seed=seed + runs, shrink=shrink)
            except Violated as error:
                violated = error.invariant
                story = "\n".join([str(error), *getattr(error, "__notes__", ())])
            runs += 1
        return Outcome(seed, tally.steps, tally.ends, tally.longest, tally.seconds, violated, story)
