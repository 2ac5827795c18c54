"""Owns playing with a site: every deed that a step may do, what its answer has to be, and letting things settle.

A deed acts, tells the reference, and looks; `Violated` is raised where something does not hold.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, UUID, uuid5

from medforged.domain.containers import ContainerState
from medforged.domain.errors import (
    CreateFailed,
    IsolationError,
    MedForgeError,
    NoGpuAvailable,
    PackNotFound,
    SessionLimitReached,
    SessionNotFound,
    StateError,
    StoppedWhileStarting,
    TierUnavailable,
)
from medforged.domain.sessions import Session, Tier
from medforged.services.assembly import Makers
from tests.crash.invariants import Violation
from tests.crash.world import Record
from tests.model.checks import LIMIT, Scene, always, settled
from tests.model.database import Database
from tests.model.look import look
from tests.model.reference import Asked, Death, Reference, Trouble
from tests.model.site import Site

__all__ = ["CREATE_SECONDS", "USERS", "Call", "Play", "Violated", "pick"]

USERS = tuple(uuid5(NAMESPACE_OID, f"model user {number}") for number in range(5))
# Within this a create has to be answered, and an end that nothing hinders has to be over.
CREATE_SECONDS = 3.0
# What nothing has hindered settles within the first, and what was hindered within the second, once nothing is the
# matter any more: a poll, and the longest pause before an end is tried again, lie between.
PROMPT_SECONDS = 5.0
LONGEST_SECONDS = 60.0
_PAUSES = (0.0, 0.1, 0.4, 0.5, 1.0, 1.0, 2.0, 2.5, 2.5, 5.0, 5.0, 10.0, 10.0, 10.0, 10.0)


T = TypeVar("T")


def pick(among: Sequence[T], number: int) -> T:
    """One of them, whichever number was drawn."""
    return among[number % len(among)]


class Violated(AssertionError):
    """An invariant does not hold."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(str(violation))
        self.violation = violation
        self.invariant = violation.invariant

    def __reduce__(self) -> tuple[type[Violated], tuple[Violation]]:
        # It comes from another process: an exception is made again from its arguments, which are its text.
        return Violated, (self.violation,)


@dataclass
class Call:
    """Somebody calls the daemon. `rivals`: whether the same user had or wanted another session when it began."""

    what: str
    task: asyncio.Task[Any]
    user: UUID | None = None
    target: UUID | None = None
    ended: bool = False
    rivals: bool = False
    known: frozenset[UUID] = frozenset()
    met: set[Trouble] = field(default_factory=set)


class Play:
    """One site from its beginning to its end."""

    def __init__(self, database: Database, make: Makers) -> None:
        self.site = Site(database, make)
        self.reference = Reference()
        self.calls: list[Call] = []
        self.world = look(self.site, frozenset())
        self.hindered = False
        """Whether anything was the matter since all had settled the last time."""
        self.unsettled: set[Trouble] = set()
        """What was: the daemon need not have noticed yet that it is over."""
        self.waited: Counter[str] = Counter()
        self.longest: dict[str, float] = {"prompt": 0.0, "hindered": 0.0}

    def close(self) -> None:
        self.site.close()

    # Looking.

    @property
    def calm(self) -> bool:
        return self.reference.calm

    @property
    def idle(self) -> bool:
        """Whether nothing is the matter and nothing is under way."""
        return self.calm and not self.calls and not self.reference.stuck and not self.hindered

    def look(self) -> None:
        """See what is there now, hear what calls have answered, and hold everything against it that always holds."""
        before, self.world = self.world, look(self.site, frozenset(self.reference.orphans))
        self.reference.learn(self.world)
        for call in [call for call in self.calls if call.task.done()]:
            self.calls.remove(call)
            self._answered(call)
        for call in self.calls:
            call.met |= self.reference.troubles | self.reference.lately
        self._hold(always(Scene(self.site, self.reference, before, self.world)))

    def settle(self) -> None:
        """Give everything its time, unless something is the matter that would not let it."""
        self.look()
        if not self.calm:
            self.hindered = True
            return
        waited = 0.0
        for pause in _PAUSES:
            self.site.loop.pass_time(pause)
            waited += pause
            self.look()
            stuck = self.reference.stuck
            # A pass waits for who is stuck, for a while, and passes wait for each other.
            waiting = [
                call for call in self.calls if call.target not in stuck and not (stuck and call.what == "reconcile")
            ]
            wrong = list(settled(Scene(self.site, self.reference, self.world, self.world)))
            if not wrong and not waiting:
                break
            if waited >= (LONGEST_SECONDS if self.hindered else PROMPT_SECONDS):
                what = [f"after {waited:g} s: {violation}" for violation in wrong]
                if wrong:
                    raise Violated(Violation(wrong[0].invariant, "; ".join(what)))
                raise Violated(Violation("calls_are_answered", f"{waiting[0].what} has no answer after {waited:g} s"))
        kind = "hindered" if self.hindered else "prompt"
        self.longest[kind] = max(self.longest[kind], waited)
        self.hindered = bool(self.reference.stuck)
        self.unsettled.clear()
        self.reference.lately.clear()

    def _hold(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            raise Violated(violation)

    def require(self, condition: bool, invariant: str, sentence: str) -> None:
        if not condition:
            raise Violated(Violation(invariant, sentence))

    # Calling the daemon.

    def create(self, user: UUID, tier: Tier = Tier.PUBLIC, pack: UUID | None = None) -> Call:
        """Begin to create; the answer comes with a later look."""
        active = any(self.reference.lives[record.id].user == user for record in self.world.active)
        wanted = any(call.user == user for call in self.calls)
        work = self.site.services.creation.create(user_id=user, tier=tier, pack_id=pack, max_concurrent_sessions=LIMIT)
        call = self._call("create", work, user=user, rivals=active or wanted)
        for other in self.calls:
            if other.user == user and other is not call:
                other.rivals = True
        return call

    def create_alone(self, user: UUID) -> Session | None:
        """Create when nothing else goes on: the answer is known before."""
        held = any(self.reference.lives[record.id].user == user for record in self.world.active)
        free = self.reference.free(self.world)
        call = self.create(user)
        self.site.loop.pass_time(CREATE_SECONDS)
        self.require(call.task.done(), "calls_are_answered", f"a create has no answer after {CREATE_SECONDS:g} s")
        error = call.task.exception()
        session: Session | None = None if error else call.task.result()
        expected: type[MedForgeError] | None = SessionLimitReached if held else None if free else NoGpuAvailable
        told = f"with GPUs {free} free, a create of {'a busy' if held else 'a'} user ended with {error or session!r}"
        self.require(type(error) is (expected or type(None)), "liveness", told)
        self.require(session is None or session.gpu_id == free[0], "liveness", told)
        self.look()
        return session

    def stop(self, target: UUID) -> Call:
        """Begin to request a stop; the answer comes with a later look."""
        record = self.world.record(target)
        life = self.reference.lives.get(target)
        ended = record is None or not record.active
        if life is not None and not ended and life.asked is Asked.NO:
            life.asked = Asked.PERHAPS
        return self._call("stop", self.site.services.ending.request_stop(target), target=target, ended=ended)

    def reconcile(self) -> Call:
        return self._call("reconcile", self.site.services.recovery.on_demand())

    def _call(self, what: str, work: Any, **more: Any) -> Call:
        known = frozenset(self.reference.lives)
        task = self.site.call(work)
        call = Call(what, task, known=known, met=set(self.reference.troubles), **more)
        self.calls.append(call)
        return call

    def _answered(self, call: Call) -> None:
        if call.task.cancelled():
            return
        error = call.task.exception()
        if error is not None and not isinstance(error, MedForgeError):
            raise Violated(Violation("no_defects", f"{call.what} ended with {error!r}")) from error
        if call.what == "create":
            self._created(call, error)
        elif call.what == "stop":
            self._stopped(call, error)
        elif error is not None:
            self.require(bool(call.met), "liveness", f"reconcile ended with {error}, and nothing was the matter")

    def _created(self, call: Call, error: MedForgeError | None) -> None:
        if error is None:
            session: Session = call.task.result()
            self.reference.lives[session.id].told = True
            self.require(session.user_id == call.user, "liveness", f"{call.user} got the session of {session.user_id}")
            return
        mine = [life for life in self.reference.lives.values() if life.user == call.user and life.id not in call.known]
        accident = any(life.deaths or life.met for life in mine) or bool(call.met)
        match error:
            case SessionLimitReached():
                excused = call.rivals
            case NoGpuAvailable() | TierUnavailable() | PackNotFound():
                excused = True  # create_alone knows better
            case StoppedWhileStarting():
                excused = any(life.asked is not Asked.NO or life.deaths for life in mine) or accident
            case StateError():
                excused = bool(call.met & {Trouble.STATE, Trouble.LOST})
            case IsolationError():
                excused = bool((call.met | self.unsettled) & {Trouble.FILTER, Trouble.LEAK, Trouble.ENGINE})
            case CreateFailed():
                excused = accident
                if len(mine) == 1 and not call.rivals and Trouble.LOST not in call.met:
                    mine[0].refused = True
            case _:
                excused = False
        self.require(excused, "liveness", f"a create ended with {error!r}, and nothing that happened explains it")

    def _stopped(self, call: Call, error: MedForgeError | None) -> None:
        assert call.target is not None
        life = self.reference.lives.get(call.target)
        if error is not None:
            unknown = life is None and isinstance(error, SessionNotFound)
            excused = unknown or (isinstance(error, StateError) and bool(call.met & {Trouble.STATE, Trouble.LOST}))
            self.require(excused, "liveness", f"a stop request ended with {error!r}")
            return
        session, requested = call.task.result()
        self.require(life is not None, "liveness", f"a stop of a session that never was gave {session}")
        assert life is not None
        self.require(not (call.ended and requested), "liveness", f"{session.slug} had ended, and was stopped once more")
        if requested:
            life.asked = Asked.YES

    # What happens to sessions.

    def living(self) -> list[Record]:
        """The sessions whose container runs, oldest first."""
        running = {found.name for found in self.world.containers if found.running}
        return [record for record in self.world.records if record.container_name in running]

    def die(self, record: Record, death: Death, *, killed: bool = False) -> None:
        """A container ends by itself, or is removed behind the daemon's back."""
        name = record.container_name
        found = self.site.host.containers.get(name)
        if found is None or found.state is not ContainerState.RUNNING:
            return
        if death is Death.MISSING:
            self.site.containers.vanish(name)
        else:
            self.site.containers.die(name, exit_code=137 if killed else 1, oom_killed=death is Death.MEMORY)
        self._died(record, death)

    def docker_restarts(self) -> None:
        for record in self.living():
            self._died(record, Death.EXITED)
        self.site.containers.restart_engine()
        self.hindered = True

    def _died(self, record: Record, death: Death) -> None:
        now = next((row for row in look(self.site, frozenset()).records if row.id == record.id), record)
        if now.status in ("starting", "running"):
            self.reference.lives[record.id].deaths.add(death)

    # The daemon's own lives.

    def kill(self) -> None:
        self._daemon_ends(self.site.kill)

    def restart(self) -> None:
        self._daemon_ends(self.site.restart)

    def _daemon_ends(self, end: Callable[[], None]) -> None:
        self.look()
        self._interrupted()
        end()
        self.calls.clear()
        self.world, before = look(self.site, frozenset(self.reference.orphans)), self.world
        self.reference.learn(self.world)
        self._interrupted()
        self._hold(always(Scene(self.site, self.reference, before, self.world)))
        self.hindered = True

    def _interrupted(self) -> None:
        """Whoever was on the way somewhere, or has just arrived, may have met the daemon's end."""
        stops, starts = self.site.told("session.stop"), self.site.told("session.start")
        for record in self.world.records:
            on_the_way = record.status in ("starting", "stopping")
            untold = record.id not in starts if record.active else record.id not in stops
            if on_the_way or untold:
                self.reference.lives[record.id].met.add(Trouble.KILL)

    # What is the matter with the host; tests/model/troubles.py knows how to bring it about.

    def begin(self, trouble: Trouble) -> None:
        self.look()
        self.reference.troubles.add(trouble)
        self.unsettled.add(trouble)
        self.reference.since[trouble] = self.site.loop.time()
        self.reference.learn(self.world)
        for call in self.calls:
            call.met.add(trouble)
        self.hindered = True

    def end(self, trouble: Trouble) -> None:
        self.look()
        self.reference.troubles.discard(trouble)
