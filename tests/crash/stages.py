"""Owns what a theatre does with one life of a daemon: prepare it for a scenario, watch it act or recover, and look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from medforged.client import DaemonError
from medforged.config import Settings
from medforged.contract.methods import sessions_create
from medforged.contract.sessions import CreateSession
from medforged.domain.errors import HostError
from medforged.ports.parts import Parts
from tests.crash.faults import altered, disturbed
from tests.crash.invariants import Violation, at_any_moment, between, bystanders, liveness, settled
from tests.crash.lives import Life, LifeEnded, PatienceEnded, living
from tests.crash.points import NEVER_SECONDS, Points, Strikes, nowhere, watched
from tests.crash.sabotages import Sabotage
from tests.crash.scenarios import BYSTANDER, NEWCOMER, Scenario, Stage, changed
from tests.crash.shared import Shared
from tests.crash.testbed import Testbed
from tests.crash.world import World

__all__ = ["Run", "Theatre", "lacking"]

_GPUS = 4


@dataclass(slots=True)
class Run:
    """What became of one life: the points that it reached with the keys of what a crash there leaves (empty: not looked
    at), whether it was killed at its target, and what did not hold."""

    trace: dict[str, str] = field(default_factory=dict)
    killed: bool = False
    violations: list[Violation] = field(default_factory=list)


class Theatre:
    """A testbed on which daemons live, one after the other. `log` is a file with what the last ones have said;
    `lives` is how many there were."""

    def __init__(self, testbed: Testbed, log: Path, sabotage: Sabotage | None = None) -> None:
        self.testbed = testbed
        self.log = log
        self.sabotage = sabotage
        self.shared = Shared()
        self.lives = 0
        # What is taken away is missed at once: there is no need to be patient.
        self._patience_seconds = testbed.patience_seconds if sabotage is None else testbed.patience_seconds / 10

    def said(self) -> str:
        """What the last daemons have said."""
        return self.log.read_text() if self.log.exists() else ""

    def describe(self) -> str:
        """Everything on the host in full."""
        return self.testbed.describe()

    def prepare(self, scenario: Scenario, life: Life) -> None:
        """Bring a living daemon to where the scenario begins. Raises PatienceEnded, LifeEnded and DaemonError."""
        stage = Stage(self.testbed, life)
        life.until_ready()
        if not any(record.active and str(BYSTANDER) in record.workspace for record in stage.records()):
            asyncio.run(stage.create(BYSTANDER))
        asyncio.run(scenario.setup(stage))
        life.until_idle()

    def recovered(self, scenario: Scenario, life: Life, before: World, *, acted: bool) -> Run:
        """A daemon that has just been started moves everything on. `acted`: the last one was killed in the act."""
        certain = acted and scenario.certain and not scenario.again
        return self.observe(life, life.until_ready, lambda world: lacking(scenario, before, world, goal=certain))

    def resumed(
        self, scenario: Scenario, life: Life, before: World, *, acted: bool, another: bool = True
    ) -> list[Violation]:
        """What does not hold when life goes on after recovery: the act, once more, and `another` session."""
        self.shared.disturbed = False
        if acted and scenario.again:
            stage = Stage(self.testbed, life)
            run = self.observe(
                life,
                lambda: asyncio.run(scenario.act(stage)),
                lambda world: lacking(scenario, before, world, goal=True),
            )
            if run.violations:
                return run.violations
        return self._make_another(scenario, life, before) if another else []

    def observe(self, life: Life, act: Callable[[], None], missed: Callable[[World], list[Violation]]) -> Run:
        """Act, wait until nothing is missed any more, and note what became of it."""
        run = Run()
        try:
            try:
                act()
                life.until(
                    lambda: self.shared.idle and not missed(self.testbed.look()), "good end", self._patience_seconds
                )
            except LifeEnded:
                life.until_ended()
                run.killed = life.killed
                if not run.killed:
                    run.violations.append(Violation("daemon", "it ended by itself; see its log"))
        except (PatienceEnded, TimeoutError) as error:
            run.violations += missed(self.testbed.look()) or [Violation("daemon", str(error))]
        except (DaemonError, HostError) as error:
            run.violations.append(Violation("act", f"it failed: {error}"))
        run.trace = self.shared.trace
        return run

    def looked_at(self, scenario: Scenario, before: World, run: Run) -> Run:
        """What has to hold at the very moment of the crash."""
        if run.killed:
            after = _tolerant(before, self.testbed.look())
            run.violations += at_any_moment(after) + between(before, after) + _spared(scenario, before, after)
        return run

    def living(
        self,
        scenario: Scenario,
        strikes: Strikes = nowhere,
        left: Callable[[], str] = str,
        *,
        armed: bool = False,
        disturbed: bool,
        sabotaged: bool,
    ) -> AbstractContextManager[Life]:
        """A life that ends with the context, or where it is struck."""
        self.lives += 1
        around = self._around(scenario, Points(self.shared, strikes, left), self.sabotage if sabotaged else None)
        return living(self.settings(scenario), self.shared, around, self.log, armed=armed, disturbed=disturbed)

    def settings(self, scenario: Scenario) -> Settings:
        """The testbed's, with intervals that never end: what happens is the act's doing, or an event's."""
        never = NEVER_SECONDS
        settings = changed(
            self.testbed.settings,
            ("gpus", "simulated_count", _GPUS),
            ("gpus", "poll_interval_seconds", never),
            ("gpus", "release_patience_seconds", 1.0),
            ("sessions", "poll_interval_seconds", never),
            ("sessions", "poll_backoff_max_seconds", never),
            ("sessions", "isolation_interval_seconds", never),
            ("sessions", "isolation_probe_interval_seconds", never),
        )
        return changed(settings, *scenario.settings)

    def _make_another(self, scenario: Scenario, life: Life, before: World) -> list[Violation]:
        """A new session can be made wherever a GPU is free, and everything holds with it."""
        at_rest, refusal = self.testbed.look(), None
        try:
            asyncio.run(life.call(sessions_create, CreateSession(user_id=NEWCOMER)))
        except DaemonError as error:
            refusal = error.code.value
        except LifeEnded:
            refusal = "the end of the daemon"
        after = self.testbed.look()
        return liveness(at_rest, refusal, after) + lacking(scenario, before, after, goal=False)

    def _around(self, scenario: Scenario, points: Points, sabotage: Sabotage | None) -> Callable[[Parts], Parts]:
        def around(parts: Parts) -> Parts:
            parts = disturbed(parts, scenario.faults, self.shared)
            if sabotage is not None:
                parts = altered(parts, sabotage.answers(self.testbed.directory))
            return watched(parts, points, pace=self.testbed.pace)

        return around


def lacking(scenario: Scenario, before: World, world: World, *, goal: bool) -> list[Violation]:
    """Everything that a world which has come to rest lacks."""
    world = _tolerant(before, world)
    found = settled(world) + between(before, world) + _spared(scenario, before, world)
    return found + [Violation("goal", told) for told in scenario.goal(world)] if goal else found


def _spared(scenario: Scenario, before: World, world: World) -> list[Violation]:
    return bystanders(before, world, str(BYSTANDER)) if scenario.spares else []


def _tolerant(before: World, world: World) -> World:
    return replace(world, tolerated=before.strangers)
