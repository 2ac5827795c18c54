"""Owns living through a scenario, or a recovery, up to a point: restore a state, live, be killed, live again, look."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from medforged.client import DaemonError
from medforged.config import Settings, simulated
from medforged.contract.methods import sessions_create
from medforged.contract.sessions import CreateSession
from medforged.domain.errors import HostError
from medforged.ports.parts import Parts
from tests.crash.faults import altered, disturbed
from tests.crash.invariants import Violation, at_any_moment, between, bystanders, liveness, settled
from tests.crash.lives import Life, LifeEnded, PatienceEnded, living, rehearse
from tests.crash.points import NEVER_SECONDS, Points, watched
from tests.crash.sabotages import Sabotage
from tests.crash.scenarios import BYSTANDER, NEWCOMER, Scenario, Stage, changed
from tests.crash.shared import Shared
from tests.crash.simulated import look, signature
from tests.crash.world import World

__all__ = ["Run", "Theatre"]

_PACE = 20.0
_GPUS = 4
_SETTLE_SECONDS = 10.0


@dataclass(slots=True)
class Run:
    """What became of one life: the points that it reached with the keys of what a crash there leaves (empty: not looked
    at), whether it was killed at its target, and what did not hold."""

    trace: dict[str, str] = field(default_factory=dict)
    killed: bool = False
    violations: list[Violation] = field(default_factory=list)


class Theatre:
    """A directory in which daemons live, one after the other. `log` is a file with what the last ones have said."""

    def __init__(self, directory: Path, sabotage: Sabotage | None = None) -> None:
        self.directory = directory
        self.log = directory.with_suffix(".log")
        self._sabotage = sabotage
        self._shared = Shared()
        # What is taken away is missed at once: there is no need to be patient.
        self._settle_seconds = _SETTLE_SECONDS if sabotage is None else 1.0

    def rehearse(self, scenario: Scenario) -> None:
        """Once in a process, so that its daemons are forked with everything at hand."""
        self._clear()
        rehearse(self._settings(scenario))

    def set_up(self, scenario: Scenario) -> None:
        """Make the state in which the scenario begins. Raises PatienceEnded and DaemonError."""
        self._clear()
        with self._living(scenario, disturbed=scenario.early, sabotaged=False) as life:
            stage = Stage(life.settings, life)
            life.until_ready()
            asyncio.run(stage.create(BYSTANDER))
            asyncio.run(scenario.setup(stage))
            life.until_idle()

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
            asyncio.run(scenario.away(Stage(self._settings(scenario), None)))
        sabotaged = self._sabotage is not None and not self._sabotage.recovery_only
        with self._living(scenario, target, armed=away, disturbed=not away, sabotaged=sabotaged) as life:

            def begin() -> None:
                life.until_ready()
                self._shared.armed = True
                asyncio.run(scenario.act(Stage(life.settings, life)))

            run = self._observe(life, begin, lambda world: _lacking(scenario, before, world, goal=True))
        return self._looked_at(scenario, before, run)

    def recover(self, scenario: Scenario, state: Path, target: str | None) -> Run:
        """A daemon's recovery from a state, killed at the target; where there is none, to its end and with keys."""
        before = self._restore(state)
        left = partial(self.key, scenario) if target is None else str
        with self._living(scenario, target, left, armed=True, disturbed=scenario.lasting, sabotaged=True) as life:
            run = self._observe(life, life.until_ready, lambda world: _lacking(scenario, before, world, goal=False))
        return self._looked_at(scenario, before, run)

    def survive(self, scenario: Scenario, *, acted: bool) -> list[Violation]:
        """Start the daemon where the last one was killed, and say what does not hold then.

        `acted`: it was killed during the scenario's act, and not in a recovery of somebody else's.
        """
        before = look(self.directory)
        certain = acted and scenario.certain and not scenario.again
        with self._living(scenario, disturbed=scenario.lasting, sabotaged=True) as life:
            stage = Stage(life.settings, life)
            run = self._observe(life, life.until_ready, lambda world: _lacking(scenario, before, world, goal=certain))
            self._shared.disturbed = False
            if not run.violations and acted and scenario.again:
                run = self._observe(
                    life,
                    lambda: asyncio.run(scenario.act(stage)),
                    lambda world: _lacking(scenario, before, world, goal=True),
                )
            return run.violations or self._make_another(scenario, life, before)

    def _observe(self, life: Life, act: Callable[[], None], lacking: Callable[[World], list[Violation]]) -> Run:
        """Act, wait until nothing is lacking any more, and note what became of it."""
        run = Run()
        try:
            try:
                act()
                life.until(
                    lambda: self._shared.idle and not lacking(look(self.directory)), "good end", self._settle_seconds
                )
            except LifeEnded:
                life.until_ended()
                run.killed = life.killed
                if not run.killed:
                    run.violations.append(Violation("daemon", "it ended by itself; see its log"))
        except (PatienceEnded, TimeoutError) as error:
            run.violations += lacking(look(self.directory)) or [Violation("daemon", str(error))]
        except (DaemonError, HostError) as error:
            run.violations.append(Violation("act", f"it failed: {error}"))
        run.trace = self._shared.trace
        return run

    def _make_another(self, scenario: Scenario, life: Life, before: World) -> list[Violation]:
        """A new session can be made wherever a GPU is free, and everything holds with it."""
        at_rest, refusal = look(self.directory), None
        try:
            asyncio.run(life.call(sessions_create, CreateSession(user_id=NEWCOMER)))
        except DaemonError as error:
            refusal = error.code.value
        except LifeEnded:
            refusal = "the end of the daemon"
        after = look(self.directory)
        return liveness(at_rest, refusal, after) + _lacking(scenario, before, after, goal=False)

    def _looked_at(self, scenario: Scenario, before: World, run: Run) -> Run:
        """What has to hold at the very moment of the crash."""
        if run.killed:
            after = _tolerant(before, look(self.directory))
            run.violations += at_any_moment(after) + between(before, after) + _spared(scenario, before, after)
        return run

    def _restore(self, state: Path) -> World:
        self._clear()
        shutil.copytree(state, self.directory)
        return look(self.directory)

    def _clear(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.log.unlink(missing_ok=True)

    def _living(
        self,
        scenario: Scenario,
        target: str | None = None,
        left: Callable[[], str] = str,
        *,
        armed: bool = False,
        disturbed: bool,
        sabotaged: bool,
    ) -> AbstractContextManager[Life]:
        around = self._around(scenario, Points(self._shared, target, left), self._sabotage if sabotaged else None)
        return living(self._settings(scenario), self._shared, around, self.log, armed=armed, disturbed=disturbed)

    def _around(self, scenario: Scenario, points: Points, sabotage: Sabotage | None) -> Callable[[Parts], Parts]:
        def around(parts: Parts) -> Parts:
            parts = disturbed(parts, scenario.faults, self._shared)
            if sabotage is not None:
                parts = altered(parts, sabotage.answers(self.directory))
            return watched(parts, points, pace=_PACE)

        return around

    def _settings(self, scenario: Scenario) -> Settings:
        """Those of `--simulate`, with intervals that never end: what happens is the act's doing, or an event's."""
        never = NEVER_SECONDS
        settings = changed(
            simulated(Settings(), self.directory),
            ("gpus", "simulated_count", _GPUS),
            ("gpus", "poll_interval_seconds", never),
            ("gpus", "release_patience_seconds", 1.0),
            ("sessions", "poll_interval_seconds", never),
            ("sessions", "poll_backoff_max_seconds", never),
            ("sessions", "isolation_interval_seconds", never),
            ("sessions", "isolation_probe_interval_seconds", never),
        )
        return changed(settings, *scenario.settings)


def _lacking(scenario: Scenario, before: World, world: World, *, goal: bool) -> list[Violation]:
    """Everything that a world which has come to rest lacks."""
    world = _tolerant(before, world)
    found = settled(world) + between(before, world) + _spared(scenario, before, world)
    return found + [Violation("goal", told) for told in scenario.goal(world)] if goal else found


def _spared(scenario: Scenario, before: World, world: World) -> list[Violation]:
    return bystanders(before, world, str(BYSTANDER)) if scenario.spares else []


def _tolerant(before: World, world: World) -> World:
    return replace(world, tolerated=before.strangers)
