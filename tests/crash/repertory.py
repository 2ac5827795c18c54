"""Owns a theatre whose every life begins with a state that was kept: copied back, lived through up to a point, looked at."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from functools import partial
from pathlib import Path

from tests.crash.invariants import Violation
from tests.crash.lives import rehearse
from tests.crash.points import at
from tests.crash.sabotages import Sabotage
from tests.crash.scenarios import Scenario, Stage
from tests.crash.simulated import SimulatedTestbed, signature
from tests.crash.stages import Run, Theatre, lacking
from tests.crash.world import World

__all__ = ["Repertory"]


class Repertory(Theatre):
    """A directory in which daemons live, one after the other, with the simulated host that is in it."""

    def __init__(self, directory: Path, sabotage: Sabotage | None = None) -> None:
        super().__init__(SimulatedTestbed(directory), directory.with_suffix(".log"), sabotage)
        self.directory = directory

    def rehearse(self, scenario: Scenario) -> None:
        """Once in a process, so that its daemons are forked with everything at hand."""
        self._clear()
        rehearse(self.settings(scenario))

    def set_up(self, scenario: Scenario) -> None:
        """Make the state in which the scenario begins. Raises PatienceEnded and DaemonError."""
        self._clear()
        with self.living(scenario, disturbed=scenario.early, sabotaged=False) as life:
            self.prepare(scenario, life)

    def keep(self, kept: Path) -> None:
        """Copy what a daemon left; it must be dead."""
        shutil.copytree(self.directory, kept, ignore=shutil.ignore_patterns("*.sock"))

    def key(self, scenario: Scenario) -> str:
        """The same for what is there now and for whatever differs from it in nothing that matters to recovery."""
        matters = (signature(self.directory), scenario.settings, scenario.faults if scenario.lasting else ())
        return hashlib.sha256(repr(matters).encode()).hexdigest()

    def act(self, scenario: Scenario, state: Path, target: str | None) -> Run:
        """The scenario's act from a state on, killed at the target; to its end where there is none."""
        before = self._restore(state)
        away = scenario.away is not None
        if scenario.away is not None:
            asyncio.run(scenario.away(Stage(self.testbed, None)))
        sabotaged = self.sabotage is not None and not self.sabotage.recovery_only
        with self.living(scenario, at(target), armed=away, disturbed=not away, sabotaged=sabotaged) as life:

            def begin() -> None:
                life.until_ready()
                self.shared.armed = True
                asyncio.run(scenario.act(Stage(self.testbed, life)))

            run = self.observe(life, begin, lambda world: lacking(scenario, before, world, goal=True))
        return self.looked_at(scenario, before, run)

    def recover(self, scenario: Scenario, state: Path, target: str | None) -> Run:
        """A daemon's recovery from a state, killed at the target; where there is none, to its end and with keys."""
        before = self._restore(state)
        left = partial(self.key, scenario) if target is None else str
        with self.living(scenario, at(target), left, armed=True, disturbed=scenario.lasting, sabotaged=True) as life:
            run = self.observe(life, life.until_ready, lambda world: lacking(scenario, before, world, goal=False))
        return self.looked_at(scenario, before, run)

    def survive(self, scenario: Scenario, *, acted: bool) -> list[Violation]:
        """Start the daemon where the last one was killed, and say what does not hold then.

        `acted`: it was killed during the scenario's act, and not in a recovery of somebody else's.
        """
        before = self.testbed.look()
        with self.living(scenario, disturbed=scenario.lasting, sabotaged=True) as life:
            run = self.recovered(scenario, life, before, acted=acted)
            return run.violations or self.resumed(scenario, life, before, acted=acted)

    def _restore(self, state: Path) -> World:
        self._clear()
        shutil.copytree(state, self.directory)
        return self.testbed.look()

    def _clear(self) -> None:
        self.testbed.clear()
        self.log.unlink(missing_ok=True)
