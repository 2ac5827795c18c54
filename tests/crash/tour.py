"""Owns killing daemons at a sample of the points, on a testbed whose state cannot be copied: it goes on from where it is.

No list of points is here either. A daemon is killed at the first point of its life of a kind at which none was killed
before, wherever it meets it; that goes on until a life meets none any more. Kinds are told apart by what is called, with
which arguments, in an act or in a recovery. A step that is new to the product is a new kind, so it is in the sample.
Where a crash before a step leaves just what one after the step before it does, only the latter is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medforged.client import DaemonError
from medforged.contract.gpus import GpuRef
from medforged.contract.methods import gpus_enable, sessions_reconcile, sessions_stop
from medforged.contract.sessions import ReconcileSessions, SessionRef
from tests.crash.invariants import Violation
from tests.crash.lives import Life, LifeEnded, PatienceEnded
from tests.crash.points import Strikes, at
from tests.crash.sabotages import Sabotage
from tests.crash.scenarios import BYSTANDER, Scenario, Stage
from tests.crash.stages import Run, Theatre, lacking
from tests.crash.tallies import Failure, Tally, tell
from tests.crash.testbed import Testbed, gpu_driver
from tests.crash.world import World

__all__ = ["Tour", "Visit", "differs", "go_round", "kind"]

_NUMBER = re.compile(r" #\d+(?= (?:before|after)$)")


@dataclass(slots=True)
class Visit:
    """A scenario's points: those of its act, and those of the recoveries from crashes in it. `seconds` is what it took."""

    act: Tally
    recovery: Tally
    seconds: float = 0.0

    @property
    def failures(self) -> list[Failure]:
        return self.act.failures

    @property
    def points(self) -> int:
        return self.act.points + self.recovery.points

    @property
    def survived(self) -> int:
        return self.act.survived + self.recovery.survived


class Tour(Theatre):
    """`log` as of Theatre. Begins on a testbed on which nothing is."""

    def __init__(self, testbed: Testbed, log: Path, sabotage: Sabotage | None = None) -> None:
        super().__init__(testbed, log, sabotage)
        self._killed_in_acts: set[str] = set()
        self._killed_in_recoveries: set[str] = set()
        self._stack = contextlib.ExitStack()

    def visit(self, scenario: Scenario) -> Visit:
        """Kill daemons in this scenario until it has no kind of point any more that none was killed at; in its middle if
        there is none to begin with. Ends with the first that is not survived."""
        visit = Visit(Tally(scenario.name, begins=0), Tally(scenario.name, begins=0))
        began = time.monotonic()
        with self._stack:
            self._go_through(scenario, visit)
        tell(visit.act)
        if visit.failures:
            # What was left is nothing to go on from.
            self.testbed.clear()
        visit.seconds = time.monotonic() - began
        return visit

    def _go_through(self, scenario: Scenario, visit: Visit) -> None:
        life = self._begin(scenario)
        while True:
            run, life = self._crash(scenario, visit, life, self._new_in_act)
            if visit.failures or not run.killed:
                break
        if visit.failures or visit.act.points:
            return
        if not run.trace:
            self._failed(visit.act, "without a crash", [Violation("act", "it meets no point at which to be killed")])
            return
        middle = at(list(run.trace)[len(run.trace) // 2])
        run, _ = self._crash(scenario, visit, self._begin(scenario, middle), middle)
        if not run.killed:
            visit.act.points += 1
            visit.act.missed.append("its middle")

    def prepare(self, scenario: Scenario, life: Life) -> None:
        """As of Theatre, after what earlier scenarios have left has been brought to its end."""
        self.shared.disturbed = False
        life.until_ready()
        asyncio.run(_tidy(Stage(self.testbed, life)))
        self.shared.disturbed = scenario.early
        super().prepare(scenario, life)
        self.shared.disturbed = False

    def _begin(self, scenario: Scenario, strikes: Strikes | None = None, *, armed: bool = False) -> Life:
        """A life before which no other was killed at a point."""
        sabotaged = self.sabotage is not None and not self.sabotage.recovery_only
        return self._start(scenario, strikes or self._new_in_act, armed=armed, disturbed=False, sabotaged=sabotaged)

    def _start(self, scenario: Scenario, strikes: Strikes, *, armed: bool, disturbed: bool, sabotaged: bool) -> Life:
        """A life until the next one starts, or the visit ends."""
        self._stack.close()
        return self._stack.enter_context(
            self.living(scenario, strikes, armed=armed, disturbed=disturbed, sabotaged=sabotaged)
        )

    def _crash(self, scenario: Scenario, visit: Visit, life: Life, strikes: Strikes) -> tuple[Run, Life]:
        """One act, the crash in it if there is one, and what comes of it. The life in which one may go on."""
        run = self._act(scenario, life, strikes)
        if not run.killed:
            if run.violations:
                self._failed(visit.act, "without a crash", run.violations)
            return run, life
        where = _last(run)
        self._killed_in_acts.add(kind(where))
        visit.act.points += 1
        visit.act.met.add(where)
        violations, again = run.violations, list[str]()
        if not violations:
            before = self.testbed.look()
            violations, life = self._survive(scenario, before, again)
            visit.recovery.points += len(again)
            visit.recovery.met.update(again)
            if not violations:
                # Whether another session can be made, all further ones tell by the sessions of the next act.
                violations = self.resumed(scenario, life, before, acted=True, another=visit.act.points == 1)
        if violations:
            self._failed(visit.act, "; in recovery ".join([where, *again]), violations)
        else:
            visit.act.survived += 1
            visit.recovery.survived += len(again)
        return run, life

    def _act(self, scenario: Scenario, life: Life, strikes: Strikes) -> Run:
        """Setup and act; the latter in another life where the daemon is away when the host is acted on."""
        try:
            self.prepare(scenario, life)
        except (DaemonError, LifeEnded, PatienceEnded, TimeoutError) as error:
            return Run(violations=[Violation("liveness", f"nothing can be begun any more: {error!r}")])
        before = self.testbed.look()
        begin = partial(_carry_out, scenario, Stage(self.testbed, life))
        if scenario.away is None:
            self.shared.forget()
            self.shared.acting = self.shared.disturbed = self.shared.armed = True
        else:
            self._stack.close()
            asyncio.run(scenario.away(Stage(self.testbed, None)))
            life = self._begin(scenario, strikes, armed=True)
            begin = partial(life.until_ready)
        run = self.observe(life, begin, lambda world: lacking(scenario, before, world, goal=True))
        self.shared.armed = False
        return self.looked_at(scenario, before, run)

    def _survive(self, scenario: Scenario, before: World, again: list[str]) -> tuple[list[Violation], Life]:
        """Start daemons until one is not killed in recovery; what does not hold, and that one's life. `again` gets where
        the others were."""
        while True:
            life = self._start(scenario, self._new, armed=True, disturbed=scenario.lasting, sabotaged=True)
            run = self.recovered(scenario, life, before, acted=True)
            self.shared.armed = False
            if not run.killed:
                return run.violations, life
            again.append(_last(run))
            self._killed_in_recoveries.add(kind(again[-1]))
            run = self.looked_at(scenario, before, run)
            if run.violations:
                return run.violations, life

    def _new(self, label: str, previous: str) -> bool:
        return (self._new_in_act if self.shared.acting else self._new_in_recovery)(label, previous)

    def _new_in_act(self, label: str, previous: str) -> bool:
        return (differs(label, previous) or not previous) and kind(label) not in self._killed_in_acts

    def _new_in_recovery(self, label: str, previous: str) -> bool:
        # What a crash at the first leaves is what is there.
        return differs(label, previous) and kind(label) not in self._killed_in_recoveries

    def _failed(self, tally: Tally, where: str, violations: list[Violation]) -> None:
        tally.failures.append(Failure(where, violations, self.said(), self.describe()))


def kind(label: str) -> str:
    """What a point has in common with others of the same call: `… #2 after` is `… after`."""
    return _NUMBER.sub("", label)


def differs(label: str, previous: str) -> bool:
    """Whether a crash there leaves something else than one at the point before: something was done, or is being done."""
    return label.endswith(" after") or previous.endswith(" before")


def _carry_out(scenario: Scenario, stage: Stage) -> None:
    asyncio.run(scenario.act(stage))


def _last(run: Run) -> str:
    return list(run.trace)[-1]


async def _tidy(stage: Stage) -> None:
    """End every session but the bystander's, and give every GPU back."""
    others = [record for record in stage.records() if record.active and str(BYSTANDER) not in record.workspace]
    for record in others:
        await stage.life.call(sessions_stop, SessionRef(session_id=record.id))
    ids = {record.id for record in others}
    await stage.until(lambda: not any(record.active and record.id in ids for record in stage.records()))
    devices = stage.world().devices
    for device in devices:
        if device.processes:
            gpu_driver(stage.testbed).set_processes(device.uuid, ())
        if not device.enabled:
            await stage.life.call(gpus_enable, GpuRef(gpu_id=device.id))
    if not all(device.usable for device in devices):
        await stage.life.call(sessions_reconcile, ReconcileSessions())
        await stage.until(lambda: all(device.usable for device in stage.world().devices))


def go_round(tour: Tour, scenarios: Iterable[Scenario], *, points: bool = False) -> bool:
    """Visit them all and print what came of it; whether every point was survived. `points`: name them as well."""
    visits, began = [], time.monotonic()
    for scenario in scenarios:
        visit = tour.visit(scenario)
        visits.append(visit)
        print(
            f"{scenario.name}: {visit.act.survived}/{visit.act.points} points, "
            f"recovery {visit.recovery.survived}/{visit.recovery.points}, {visit.seconds:.1f} s",
            flush=True,
        )
        if points:
            print(*(f"  {label}" for label in sorted(visit.act.met)), sep="\n")
            print(*(f"  in recovery {label}" for label in sorted(visit.recovery.met)), sep="\n")
    total, survived = sum(visit.points for visit in visits), sum(visit.survived for visit in visits)
    print(f"{tour.lives} daemons started, {total} killed at a point, in {time.monotonic() - began:.0f} s")
    print(f"crash points: {survived}/{total} survived")
    return bool(total) and survived == total and not any(visit.failures for visit in visits)
