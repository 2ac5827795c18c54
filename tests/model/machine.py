"""Owns the machine that plays: which steps there are, when each may be taken, and in which order a run takes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from uuid import UUID, uuid5

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from medforged.domain.sessions import Tier
from medforged.domain.workspaces import WorkspaceKey
from medforged.services.assembly import Makers
from tests.model.database import Database
from tests.model.play import USERS, Play, pick
from tests.model.reference import Death
from tests.model.troubles import LASTING, Troubles

__all__ = ["Deed", "Machine", "Tally"]


@dataclass
class Tally:
    """What a run has done, for its report. `seconds` is the time that passed on the sites."""

    folder: Path
    template: Path
    examples: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    longest: dict[str, float] = field(default_factory=dict)

    def database(self) -> Database:
        self.examples += 1
        folder = self.folder / f"{self.examples}"
        folder.mkdir()
        return Database(self.template, folder)


class Deed(StrEnum):
    """What several can do at the same time."""

    CREATE = "create"
    STOP = "stop"
    DIE = "die"
    RUN_OUT = "run out of memory"
    VANISH = "vanish"
    RECONCILE = "reconcile"


_NUMBERS = st.integers(0, 11)
_FEW = st.integers(1, 3)
# How many rounds of the loop lie between two deeds: a create takes about a hundred.
_ROUNDS = st.one_of(st.integers(0, 12), st.integers(0, 120))
_DEEDS = st.lists(st.tuples(st.sampled_from(Deed), _NUMBERS, _ROUNDS), min_size=1, max_size=6)
_PAUSES = st.sampled_from((0.0, 0.0, 0.05, 0.3, 1.0, 4.0, 20.0))
_DEATHS = {Deed.DIE: Death.EXITED, Deed.RUN_OUT: Death.MEMORY, Deed.VANISH: Death.MISSING}


class Machine(RuleBasedStateMachine):
    """`make` says what the services are made by, `tally` where databases go and what is counted."""

    def __init__(self, make: Makers, tally: Tally) -> None:
        super().__init__()
        self.tally = tally
        self.play = Play(tally.database(), make)
        self.troubles = Troubles(self.play)
        self._deed = ""

    def teardown(self) -> None:
        self.tally.ends.update(record.ending or record.status for record in self.play.world.records)
        self.tally.seconds += self.play.site.loop.time() - 1000
        for kind, seconds in self.play.longest.items():
            self.tally.longest[kind] = max(self.tally.longest.get(kind, 0.0), seconds)
        self.play.close()

    @invariant()
    def everything_holds(self) -> None:
        """After every step: what always holds; and what holds when all has had its time, unless something is broken."""
        self.play.settle()

    # Users.

    @rule(number=st.integers(0, len(USERS) - 1), pause=_PAUSES)
    def create(self, number: int, pause: float) -> None:
        self._counted("create")
        if self.play.idle:
            self.play.create_alone(USERS[number])
        else:
            self.play.create(USERS[number])
        self._pass(pause)

    @rule(number=st.integers(0, len(USERS) - 1), private=st.booleans())
    def create_what_does_not_exist(self, number: int, private: bool) -> None:
        self._counted("refused create")
        if private:
            self.play.create(USERS[number], tier=Tier.PRIVATE)
        else:
            self.play.create(USERS[number], pack=uuid5(USERS[0], "no pack"))

    @rule(number=_NUMBERS, times=_FEW, pause=_PAUSES)
    def stop(self, number: int, times: int, pause: float) -> None:
        self._counted("stop")
        for _ in range(times):
            self.play.stop(self._anyone(number))
        self._pass(pause)

    @precondition(lambda self: self.play.living())
    @rule(number=_NUMBERS, files=_FEW)
    def write(self, number: int, files: int) -> None:
        self._counted("write")
        record = pick(self.play.living(), number)
        key = WorkspaceKey.parse(record.workspace.removeprefix(f"{self.play.site.workspaces.root}/"))
        if key is not None and record.status == "running" and self.play.world.dataset(record.workspace):
            self.play.site.workspaces.write(key, files)

    @rule(deeds=_DEEDS, pause=_PAUSES)
    def several(self, deeds: list[tuple[Deed, int, int]], pause: float) -> None:
        self._counted("several")
        self._do(deeds)
        self._pass(pause)

    # Accidents.

    @precondition(lambda self: self.play.living())
    @rule(number=_NUMBERS, death=st.sampled_from(Death), killed=st.booleans(), pause=_PAUSES)
    def die(self, number: int, death: Death, killed: bool, pause: float) -> None:
        self._counted("die")
        self.play.die(pick(self.play.living(), number), death, killed=killed)
        self._pass(pause)

    @rule(pause=_PAUSES)
    def docker_restarts(self, pause: float) -> None:
        self._counted("docker restart")
        self.play.docker_restarts()
        self._pass(pause)

    @precondition(lambda self: self._may_start())
    @rule(deeds=_DEEDS)
    def the_daemon_is_killed(self, deeds: list[tuple[Deed, int, int]]) -> None:
        self._counted("kill")
        self._do(deeds)
        self.play.kill()

    @precondition(lambda self: self._may_start())
    @rule(deeds=_DEEDS)
    def the_daemon_is_restarted(self, deeds: list[tuple[Deed, int, int]]) -> None:
        self._counted("restart")
        self._do(deeds)
        self.play.restart()

    @rule(
        what=st.sampled_from(("engine", "lost", "refused", "storage", "ide")),
        operation=st.sampled_from(("resolve_image", "create", "start", "stop", "remove", "inspect", "containers")),
        times=_FEW,
        gone=st.booleans(),
        deeds=_DEEDS,
        pause=st.sampled_from((0.0, 0.3, 1.0, 4.0)),
    )
    def bad_luck(
        self, what: str, operation: str, times: int, gone: bool, deeds: list[tuple[Deed, int, int]], pause: float
    ) -> None:
        self._counted("bad luck")
        fate = {
            "engine": lambda: self.troubles.engine_fails(operation, times, gone=gone),
            "lost": lambda: self.troubles.answers_get_lost(times),
            "refused": lambda: self.troubles.writes_are_refused(times),
            "storage": lambda: self.troubles.storage_loses_answers(times),
            "ide": lambda: self.troubles.ides_do_not_answer(times),
        }[what]
        with fate():
            self._do(deeds)
            self._pass(pause)

    # What is broken until it is repaired.

    @precondition(lambda self: any(self.troubles.may_begin(name) for name in LASTING))
    @rule(name=st.sampled_from(sorted(LASTING)), pause=_PAUSES, ends=st.booleans())
    def something_breaks(self, name: str, pause: float, ends: bool) -> None:
        self._counted("break")
        if not self.troubles.may_begin(name):
            return
        self.troubles.begin(name)
        self._pass(pause)
        if ends:
            self.troubles.end(name)

    @precondition(lambda self: self.troubles.lasting)
    @rule(number=_NUMBERS)
    def something_is_repaired(self, number: int) -> None:
        self._counted("repair")
        self.troubles.end(pick(self.troubles.lasting, number))

    @precondition(lambda self: self.troubles.lasting)
    @rule()
    def everything_is_repaired(self) -> None:
        self._counted("repair")
        for name in list(self.troubles.lasting):
            self.troubles.end(name)

    @rule(network=st.booleans(), pause=_PAUSES)
    def isolation_is_lost(self, network: bool, pause: float) -> None:
        self._counted("flush")
        if network:
            self.troubles.lose_network()
        else:
            self.troubles.flush()
        self._pass(pause)

    @precondition(lambda self: self.play.world.active and len(self.troubles.hangs) < 2)
    @rule(
        number=_NUMBERS,
        operation=st.sampled_from(("stop", "remove", "inspect", "snapshot", "exists", "discard")),
        then=st.sampled_from((Deed.STOP, Deed.DIE, None)),
        pause=_PAUSES,
    )
    def calls_hang(self, number: int, operation: str, then: Deed | None, pause: float) -> None:
        self._counted("hang")
        record = pick(self.play.world.active, number)
        self.troubles.hang(record, operation)
        if then is Deed.STOP:
            self.play.stop(record.id)
        elif then is Deed.DIE:
            self.play.die(record, Death.EXITED)
        self._pass(pause)

    @precondition(lambda self: len(self.troubles.hangs) < 2)
    @rule(number=_NUMBERS, operation=st.sampled_from(("workspace", "create", "start", "inspect")), rounds=_ROUNDS)
    def a_create_hangs(self, number: int, operation: str, rounds: int) -> None:
        self._counted("hang")
        call = self.play.create(pick(USERS, number))
        known = set(self.play.reference.lives)
        for _ in range(12):
            self.play.site.loop.rounds(4)
            self.play.look()
            fresh = [record for record in self.play.world.records if record.id not in known]
            if fresh:
                call.target = fresh[0].id
                self.troubles.hang(fresh[0], operation)
                break
        self.play.site.loop.rounds(rounds)

    @precondition(lambda self: self.troubles.hangs)
    @rule(number=_NUMBERS)
    def a_call_returns(self, number: int) -> None:
        self._counted("release")
        self.troubles.release(number)

    # GPUs.

    @rule(number=_NUMBERS, lasting=st.booleans(), pause=_PAUSES)
    def a_gpu_breaks(self, number: int, lasting: bool, pause: float) -> None:
        self._counted("GPU breaks")
        self.troubles.break_gpu(number, lasting=lasting)
        self._pass(pause)

    @precondition(lambda self: self.play.reference.broken)
    @rule(number=_NUMBERS)
    def a_gpu_is_mended(self, number: int) -> None:
        self._counted("GPU mended")
        self.troubles.mend_gpu(number)

    @precondition(lambda self: self.play.calm and not self.play.reference.stuck)
    @rule(number=_NUMBERS)
    def a_gpu_is_rechecked(self, number: int) -> None:
        self._counted("recheck")
        self.troubles.recheck(number)

    @precondition(lambda self: self.play.calm)
    @rule(number=_NUMBERS, enabled=st.booleans())
    def a_gpu_is_switched(self, number: int, enabled: bool) -> None:
        self._counted("GPU switched")
        self.troubles.switch(number, enabled=enabled)

    @precondition(lambda self: any(record.status == "running" for record in self.play.living()))
    @rule(number=_NUMBERS)
    def a_process_lingers(self, number: int) -> None:
        self._counted("linger")
        running = [record for record in self.play.living() if record.status == "running"]
        self.troubles.linger(pick(running, number))

    @precondition(lambda self: self.play.reference.lingering)
    @rule(number=_NUMBERS)
    def a_process_leaves(self, number: int) -> None:
        self._counted("leave")
        self.troubles.leave(number)

    # The rest of the world.

    @rule(hours=st.sampled_from((-26, -3, -1, 1, 3, 26)))
    def the_clock_jumps(self, hours: int) -> None:
        self._counted("clock")
        self.play.site.clock.offset += self.play.site.clock.offset.resolution * (hours * 3_600_000_000)

    @rule(kind=st.sampled_from(("running", "exited", "files", "empty", "stray")))
    def an_orphan_appears(self, kind: str) -> None:
        self._counted("orphan")
        match kind:
            case "running" | "exited":
                self.troubles.orphan_container(running=kind == "running")
            case "files" | "empty":
                self.troubles.orphan_workspace(int(kind == "files"))
            case _:
                self.troubles.stray_port()

    @precondition(lambda self: "database locked" not in self.troubles.lasting)
    @rule()
    def orphans_are_removed(self) -> None:
        self._counted("cleanup")
        self.troubles.remove_orphans()

    @rule(pause=_PAUSES)
    def reconcile(self, pause: float) -> None:
        self._counted("reconcile")
        self.play.reconcile()
        self._pass(pause)

    @rule(seconds=st.sampled_from((1.0, 6.0, 35.0, 100.0, 400.0)))
    def time_passes(self, seconds: float) -> None:
        self._counted("time")
        self._pass(seconds)

    # How.

    def _do(self, deeds: list[tuple[Deed, int, int]]) -> None:
        """Begin each while the others are under way."""
        for deed, number, rounds in deeds:
            self.play.look()
            living = self.play.living()
            match deed:
                case Deed.CREATE:
                    self.play.create(pick(USERS, number))
                case Deed.STOP:
                    self.play.stop(self._anyone(number))
                case Deed.RECONCILE:
                    self.play.reconcile()
                case _ if living:
                    self.play.die(pick(living, number), _DEATHS[deed])
            self.play.site.loop.rounds(rounds)

    def _anyone(self, number: int) -> UUID:
        """Any session there ever was, the newest first; or one that never was."""
        known = [record.id for record in reversed(self.play.world.records)]
        return known[number] if number < len(known) else uuid5(USERS[0], "nobody")

    def _may_start(self) -> bool:
        """A daemon that finds no engine or no database does not start; its supervisor tries again until it does."""
        return not {"outage", "database full", "database locked"} & set(self.troubles.lasting)

    def _pass(self, seconds: float) -> None:
        if seconds:
            self.play.site.loop.pass_time(seconds)

    def _counted(self, step: str) -> None:
        self.tally.steps[step] += 1
