"""Owns what a daemon is doing when it is killed: one scenario for each thing that it does to the host."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from medforged.client import DaemonError
from medforged.config import Settings
from medforged.contract.errors import ErrorCode
from medforged.contract.gpus import GpuRef
from medforged.contract.methods import (
    gpus_disable,
    gpus_enable,
    gpus_recheck,
    orphans_remove,
    sessions_create,
    sessions_reconcile,
    sessions_stop,
)
from medforged.contract.orphans import RemoveOrphans
from medforged.contract.sessions import CreateSession, ReconcileSessions, SessionRef
from medforged.domain.errors import ContainerError, NotReady, WorkspaceError
from tests.crash.faults import Fault
from tests.crash.lives import Life, LifeEnded
from tests.crash.testbed import Testbed, gpu_driver
from tests.crash.world import NOBODY, Record, World, read_records

__all__ = ["BYSTANDER", "NEWCOMER", "SCENARIOS", "SUBJECT", "Scenario", "Stage", "changed"]

# Users, each with one session at most.
BYSTANDER, SUBJECT, ANOTHER, THIRD, NEWCOMER = (UUID(int=number, version=4) for number in range(1, 6))
_LOST_PROCESS = (1 << 22) + 7


class Stage:
    """A daemon and its host, for a scenario to act on. What it does to the host it does from outside."""

    def __init__(self, testbed: Testbed, life: Life | None) -> None:
        self.testbed = testbed
        self._life = life

    @property
    def life(self) -> Life:
        assert self._life is not None, "no daemon runs in this scenario's setup or while its host is acted on"
        return self._life

    def world(self) -> World:
        return self.testbed.look()

    def records(self) -> tuple[Record, ...]:
        return read_records(self.testbed.directory)

    def of(self, user: UUID) -> Record:
        """A user's newest session."""
        return next(found for found in reversed(self.records()) if str(user) in found.workspace)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait while the daemon lives. Raises LifeEnded."""
        async with asyncio.timeout(15):
            while not condition():
                if self.life.ended:
                    raise LifeEnded
                await asyncio.sleep(0.005)

    async def create(self, user: UUID, *refusals: ErrorCode) -> None:
        try:
            await self.life.call(sessions_create, CreateSession(user_id=user))
        except DaemonError as error:
            if error.code not in refusals:
                raise

    async def stop(self, user: UUID) -> None:
        await self.life.call(sessions_stop, SessionRef(session_id=self.of(user).id))

    async def until_over(self, user: UUID) -> None:
        await self.until(lambda: not self.of(user).active)


Act = Callable[[Stage], Coroutine[Any, Any, None]]
Goal = Callable[[World], Iterator[str]]


async def _nothing(_: Stage) -> None:
    """No act."""


def _anything(_: World) -> Iterator[str]:
    yield from ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """`setup` happens in a life of its own. Then `act` is done to a daemon that has come to rest; `away`, to the host
    before the daemon starts, which is then killed at every point from its start on. `faults` strike in the life that is
    killed, `lasting` ones in those after it as well, and `early` ones already in the setup's.

    `goal` has to be reached: sentences that say what is lacking. After a crash it is asked for only if it is `certain`,
    and where `again`, after the act was done once more. The recovery from states is gone through where it is `deep`: with
    several sessions at once, all their states multiply. Sessions of the `BYSTANDER` are to be spared, unless not.
    `settings` changes sections of the daemon's settings.
    """

    name: str
    act: Act = _nothing
    away: Act | None = None
    setup: Act = _nothing
    faults: tuple[Fault, ...] = ()
    lasting: bool = False
    early: bool = False
    again: bool = False
    goal: Goal = _anything
    certain: bool = True
    spares: bool = True
    deep: bool = True
    settings: tuple[tuple[str, str, object], ...] = ()


def changed(settings: Settings, *values: tuple[str, str, object]) -> Settings:
    """The settings with other values: section, key, value."""
    for section, key, value in values:
        part = msgspec.structs.replace(getattr(settings, section), **{key: value})
        settings = msgspec.structs.replace(settings, **{section: part})
    return settings


def _raising(error: Exception) -> Callable[..., Awaitable[Any]]:
    async def answer(*_args: object, **_kwargs: object) -> Any:
        raise error

    return answer


async def _silent(_call: object, address: object, port: int, timeout_seconds: float) -> None:
    await asyncio.sleep(timeout_seconds)
    raise NotReady(f"cannot reach the IDE at {address}:{port}: no answer within {timeout_seconds:g} s (simulated)")


_SILENT_IDE = Fault("readiness", "wait", _raising(NotReady("cannot reach the IDE: no answer (simulated)")))
_SLOW_IDE = Fault("readiness", "wait", _silent)
_NO_SPACE = Fault("workspaces", "snapshot", _raising(WorkspaceError("cannot take the snapshot: no space left")))
_NO_WORKSPACE = Fault("workspaces", "create", _raising(WorkspaceError("cannot create the workspace: no space left")))
_STUCK_ONCE = Fault("containers", "remove", _raising(ContainerError("cannot remove the container: busy")), times=1)
_STUCK = (
    Fault("containers", "stop", _raising(ContainerError("cannot stop the container: it does not end"))),
    Fault("containers", "remove", _raising(ContainerError("cannot remove the container: it does not end"))),
)
_SOON = (("sessions", "stopping_deadline_seconds", 2.0),)


async def _one(stage: Stage) -> None:
    await stage.create(SUBJECT)


async def _create_failing(stage: Stage) -> None:
    await stage.create(SUBJECT, ErrorCode.CREATE_FAILED)


async def _stop(stage: Stage) -> None:
    await stage.stop(SUBJECT)
    await stage.until_over(SUBJECT)


async def _stop_while_starting(stage: Stage) -> None:
    creating = asyncio.ensure_future(stage.create(SUBJECT, ErrorCode.STOPPED_WHILE_STARTING))
    try:
        await stage.until(lambda: creating.done() or _starts(stage))
        if not creating.done():
            await stage.stop(SUBJECT)
        await creating
    finally:
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
    await stage.until_over(SUBJECT)


def _starts(stage: Stage) -> bool:
    """Its container runs, and its IDE does not answer yet."""
    world = stage.world()
    return any(
        record.status == "starting" and (found := world.container(record.container_name)) is not None and found.running
        for record in world.records
    )


async def _die(stage: Stage) -> None:
    stage.testbed.kill_container(stage.of(SUBJECT).container_name)


async def _vanish(stage: Stage) -> None:
    stage.testbed.remove_container(stage.of(SUBJECT).container_name)


async def _restart_engine(stage: Stage) -> None:
    stage.testbed.restart_engine()


async def _linger(stage: Stage) -> None:
    """A process that outlives its container on the GPU, whatever happens."""
    await stage.create(SUBJECT)
    _on_its_gpu(stage, (_LOST_PROCESS,))


async def _quarantined(stage: Stage) -> None:
    await _linger(stage)
    await _stop(stage)


async def _let_go(stage: Stage) -> None:
    _on_its_gpu(stage, ())


async def _recheck(stage: Stage) -> None:
    _on_its_gpu(stage, ())
    await stage.life.call(gpus_recheck, GpuRef(gpu_id=stage.of(SUBJECT).gpu_id))


def _on_its_gpu(stage: Stage, processes: tuple[int, ...]) -> None:
    record = stage.of(SUBJECT)
    uuid = next(device.uuid for device in stage.world().devices if device.id == record.gpu_id)
    gpu_driver(stage.testbed).set_processes(uuid, processes)


async def _stuck(stage: Stage) -> None:
    await stage.create(SUBJECT)
    await _stop(stage)


async def _reconcile(stage: Stage) -> None:
    """What could not be removed at the daemon's start can be by now."""
    stage.life.shared.disturbed = False
    await stage.life.call(sessions_reconcile, ReconcileSessions())


async def _litter(stage: Stage) -> None:
    await stage.testbed.litter()


async def _remove_orphans(stage: Stage) -> None:
    await stage.life.call(orphans_remove, RemoveOrphans())


def _only_files_are_left(world: World) -> Iterator[str]:
    kept = {dataset.name for dataset in world.datasets if dataset.files or dataset.snapshots}
    yield from (f"{name} was not removed" for name in sorted(world.strangers - kept))
    if not any(dataset.files and str(NOBODY) in dataset.name for dataset in world.datasets):
        yield "the files that nobody explains were removed"


async def _disable(stage: Stage) -> None:
    await stage.life.call(gpus_disable, GpuRef(gpu_id=1))


async def _enable(stage: Stage) -> None:
    await stage.life.call(gpus_enable, GpuRef(gpu_id=1))


def _subject_is(*statuses: str) -> Goal:
    def goal(world: World) -> Iterator[str]:
        found = [record.status for record in world.records if str(SUBJECT) in record.workspace]
        if not found or found[-1] not in statuses:
            yield f"the sessions are {found}, and the last one has to be {' or '.join(statuses)}"

    return goal


def _gpu_is(*, enabled: bool) -> Goal:
    def goal(world: World) -> Iterator[str]:
        if world.devices[1].enabled is not enabled:
            yield f"GPU 1 has to be {'enabled' if enabled else 'disabled'}"

    return goal


async def _crowd_setup(stage: Stage) -> None:
    await stage.create(SUBJECT)
    await stage.create(ANOTHER)


async def _crowd(stage: Stage) -> None:
    """One session is made, one stopped, and one dies, all at once."""
    stage.testbed.kill_container(stage.of(ANOTHER).container_name)
    await asyncio.gather(stage.create(THIRD), stage.stop(SUBJECT))
    await stage.until_over(SUBJECT)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("create", act=_one, goal=_subject_is("running"), certain=False),
    Scenario(
        "create fails late", act=_create_failing, faults=(_SILENT_IDE,), lasting=True,
        goal=_subject_is("error"), certain=False,
    ),
    Scenario(
        "create fails early", act=_create_failing, faults=(_NO_WORKSPACE,), lasting=True,
        goal=_subject_is("error"), certain=False,
    ),
    Scenario(
        "create's undo fails once", act=_create_failing, faults=(_SILENT_IDE, _STUCK_ONCE),
        goal=_subject_is("error"), certain=False,
    ),
    Scenario("stop", setup=_one, act=_stop, again=True, goal=_subject_is("stopped")),
    Scenario(
        "stop of a starting session", act=_stop_while_starting, faults=(_SLOW_IDE,),
        settings=(("containers", "start_timeout_seconds", 10.0),),
        goal=_subject_is("stopped"), certain=False,
    ),
    Scenario(
        "snapshot fails", setup=_one, act=_stop, again=True, faults=(_NO_SPACE,), lasting=True,
        goal=_subject_is("stopped", "error"),
    ),
    Scenario(
        "stop is stuck", setup=_one, act=_stop, again=True, faults=_STUCK, settings=_SOON,
        goal=_subject_is("stopped", "error"),
    ),
    Scenario("death", setup=_one, act=_die, goal=_subject_is("error")),
    Scenario("container vanishes", setup=_one, act=_vanish, goal=_subject_is("error")),
    Scenario("death while the daemon is away", setup=_one, away=_die, goal=_subject_is("error")),
    Scenario("engine restarts", setup=_one, act=_restart_engine, goal=_subject_is("error"), spares=False),
    Scenario("process stays on the GPU", setup=_linger, act=_stop, again=True, goal=_subject_is("stopped")),
    Scenario("GPU is let go", setup=_quarantined, act=_let_go, again=True),
    Scenario("GPU is let go while the daemon is away", setup=_quarantined, away=_let_go),
    Scenario("GPU is rechecked", setup=_quarantined, act=_recheck, again=True),
    Scenario(
        "leftover of a stuck stop", setup=_stuck, early=True, faults=_STUCK, settings=_SOON, act=_reconcile, again=True
    ),
    Scenario(
        "leftover while the daemon is away", setup=_stuck, early=True, faults=_STUCK, settings=_SOON, away=_nothing
    ),
    Scenario("orphans are removed", setup=_litter, act=_remove_orphans, again=True, goal=_only_files_are_left),
    Scenario("GPU is disabled", act=_disable, again=True, goal=_gpu_is(enabled=False)),
    Scenario("GPU is enabled", setup=_disable, act=_enable, again=True, goal=_gpu_is(enabled=True)),
    Scenario("several at once", setup=_crowd_setup, act=_crowd, deep=False),
)  # fmt: skip
