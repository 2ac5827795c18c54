"""Owns going through every point: of each scenario's act, and of the recovery from every state that a crash leaves.

No list of points is anywhere. A run to the end tells which points there are; the daemon is then killed at each, and what
a killed one has met on its way that nobody has met before is added. A state that a crash leaves is kept once, whichever
names and times it has, and from each the recovery's points are gone through likewise. There the daemon is killed only
where that leaves a state that no crash has left before: what follows from the others is known. So crashes of any number
after each other are covered where that goes on until no new state comes any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.crash.invariants import Violation
from tests.crash.repertory import Repertory
from tests.crash.scenarios import Scenario
from tests.crash.stages import Run
from tests.crash.tallies import Failure, State, Tally

__all__ = ["Explorer"]

# A point that once was met may be missed by the next run, where two things go on at the same time.
_TRIES = 10


class Explorer:
    """Goes through points in one theatre and keeps the states that are left in a folder. `known` are states' keys that
    others are taking care of."""

    def __init__(self, theatre: Repertory, folder: Path, known: Iterable[str] = ()) -> None:
        self._theatre = theatre
        self._folder = folder
        self._known = set(known)

    def act(self, scenario: Scenario, *, until: str | None = None) -> Tally:
        """Kill the daemon at every point of the act, restart it, and look. `until`: stop when this invariant fails."""
        tally = Tally(scenario.name)
        begin = self._folder / f"begin-{scenario.name.replace(' ', '-')}"
        self._theatre.set_up(scenario)
        self._theatre.keep(begin)
        self._leave(tally, scenario, "the beginning")

        def survive(target: str) -> list[Violation]:
            self._leave(tally, scenario, target)
            return self._theatre.survive(scenario, acted=True)

        self._go_through(tally, lambda target: self._theatre.act(scenario, begin, target), survive, until)
        return tally

    def recovery(self, scenario: Scenario, state: State) -> Tally:
        """Kill the daemon wherever in the recovery from a state it leaves one that is not known, restart it, and look."""
        tally = Tally(state.scenario)

        def survive(target: str) -> list[Violation]:
            if not self._leave(tally, scenario, f"{state.after}; in recovery {target}"):
                tally.known += 1
                return []
            return self._theatre.survive(scenario, acted=False)

        self._go_through(tally, lambda target: self._theatre.recover(scenario, state.directory, target), survive)
        return tally

    def _leave(self, tally: Tally, scenario: Scenario, after: str) -> bool:
        """Keep the state that a dead daemon has left; False when it is known."""
        key = self._theatre.key(scenario)
        if key in self._known:
            return False
        self._known.add(key)
        state = State(key, self._folder / key, scenario.name, after)
        if not state.directory.exists():
            self._theatre.keep(state.directory)
        tally.states.append(state)
        return True

    def _go_through(
        self,
        tally: Tally,
        live: Callable[[str | None], Run],
        survive: Callable[[str], list[Violation]],
        until: str | None = None,
    ) -> None:
        whole = live(None)
        if whole.violations:
            self._failed(tally, "without a crash", whole.violations)
            if until is not None:
                return
        met = dict.fromkeys(whole.trace)
        waiting = deque(met)
        while waiting and not tally.failed(until):
            target = waiting.popleft()
            tally.met.add(target)
            tally.points += 1
            if whole.trace.get(target) in self._known:
                # What a crash leaves here has been survived, or counts as a failure where it was met first.
                tally.known += 1
                tally.survived += 1
                continue
            for _ in range(_TRIES):
                run = live(target)
                waiting.extend(label for label in run.trace if label not in met)
                met |= dict.fromkeys(run.trace)
                if run.killed or run.violations:
                    break
            else:
                # Nobody knows what a crash there leaves: it counts as not survived.
                tally.missed.append(target)
                continue
            tally.killed += 1
            violations = run.violations or survive(target)
            if violations:
                self._failed(tally, target, violations)
            else:
                tally.survived += 1

    def _failed(self, tally: Tally, where: str, violations: list[Violation]) -> None:
        tally.failures.append(Failure(where, violations, self._theatre.said(), self._theatre.describe()))
