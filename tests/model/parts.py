"""Owns what stands between a daemon of the model and its world: it can be cut off, and its database can fail.

A daemon that is killed has no effect from then on; what it had already asked of the host, the host goes on with.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

from medforged.adapters.simulated.workspaces import Moment, Operation
from medforged.domain.errors import ContainerError, StateError, WorkspaceError
from medforged.ports.parts import Adapters
from medforged.ports.processes import ProcessTable
from medforged.ports.state import StateStore
from medforged.ports.workspaces import WorkspaceStore

__all__ = ["Disk", "Lifeline", "StateFaults", "StateTrouble", "between"]

_WRITES = frozenset({"allocate", "change", "record_gpus", "enable_gpu", "release_gpu"})
# As the real engine's client bounds its calls, beneath the bounds that services have: looks, and all else.
_ENGINE_SECONDS = {"inspect": 10.0, "containers": 10.0, "resolve_image": 10.0, "ping": 10.0}
_ENGINE_ACTION_SECONDS = 60.0


class Lifeline:
    """Of one daemon, from its start until it is killed. `errands` are what hosts of all daemons still work on."""

    def __init__(self, errands: set[asyncio.Task[Any]]) -> None:
        self._errands = errands
        self._cut = False

    def cut(self) -> None:
        """Nothing that the daemon asks for happens any more."""
        self._cut = True

    def check(self) -> None:
        if self._cut:
            # A process that is gone does not even notice; this is the nearest thing to it that a task can do.
            raise asyncio.CancelledError

    async def errand(self, name: str, work: Any) -> Any:
        """The host goes on with what it was asked for, whether or not somebody still waits for the answer."""
        task = asyncio.ensure_future(work)
        task.set_name(name)
        self._errands.add(task)
        task.add_done_callback(self._finished)
        result = await asyncio.shield(task)
        self.check()
        return result

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._errands.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here when nobody waits any more


class StateTrouble(StrEnum):
    """What is the matter with the database."""

    NONE = "none"
    FULL = "full"
    """It can be read, and nothing be written."""
    LOCKED = "locked"
    """Nothing can be read or written."""


@dataclass
class StateFaults:
    """`trouble` lasts; of `after`, a count, that many writes succeed from the next one on and their answer is lost."""

    trouble: StateTrouble = StateTrouble.NONE
    before: int = 0
    after: int = 0

    def refuses(self, name: str) -> bool:
        if self.trouble is StateTrouble.LOCKED or (self.trouble is StateTrouble.FULL and name in _WRITES):
            return True
        if self.before and name in _WRITES:
            self.before -= 1
            return True
        return False

    def loses(self, name: str) -> bool:
        if self.after and name in _WRITES:
            self.after -= 1
            return True
        return False


@dataclass
class Disk:
    """Faults of the workspaces' storage: full while `full`; of `losing`, a count, effects whose answer is lost."""

    full: bool = False
    losing: int = 0
    fills: frozenset[Operation] = field(default=frozenset({Operation.CREATE, Operation.SNAPSHOT}))

    async def __call__(self, operation: Operation, moment: Moment) -> None:
        await asyncio.sleep(0)  # a real store always lets others run
        if moment is Moment.BEFORE and self.full and operation in self.fills:
            raise WorkspaceError(f"cannot {operation} the workspace: out of space")
        if moment is Moment.AFTER and self.losing and operation in self.fills:
            self.losing -= 1
            raise WorkspaceError(f"cannot {operation} the workspace: the answer was lost")


class _Between:
    """Any port, seen through a lifeline. What is no coroutine passes as it is: it does nothing."""

    def __init__(self, target: object, call: Callable[[str, Any], Any], lifeline: Lifeline) -> None:
        self._target = target
        self._call = call
        self._lifeline = lifeline

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def called(*arguments: Any, **named: Any) -> Any:
            self._lifeline.check()
            return await self._call(name, lambda: found(*arguments, **named))

        return called


def between(
    lifeline: Lifeline, state: StateStore, adapters: Adapters, processes: ProcessTable, faults: StateFaults
) -> tuple[StateStore, Adapters, ProcessTable]:
    """The same, as one daemon sees them."""

    async def asked(name: str, call: Callable[[], Any]) -> Any:
        return await lifeline.errand(name, call())

    async def engine(name: str, call: Callable[[], Any]) -> Any:
        try:
            async with asyncio.timeout(_ENGINE_SECONDS.get(name, _ENGINE_ACTION_SECONDS)):
                return await lifeline.errand(name, call())
        except TimeoutError as error:
            raise ContainerError(f"cannot {name}: the container engine did not answer (simulated)") from error

    async def looked(name: str, call: Callable[[], Any]) -> Any:
        del name
        return await call()

    async def stored(name: str, call: Callable[[], Any]) -> Any:
        if faults.refuses(name):
            raise StateError(f"cannot {name}: the database is {faults.trouble} (simulated)")
        result = await call()
        if faults.loses(name):
            raise StateError(f"cannot {name}: the answer was lost (simulated)")
        return result

    def wrap(target: object, call: Callable[[str, Any], Any]) -> Any:
        return _Between(target, call, lifeline)

    return (
        cast("StateStore", wrap(state, stored)),
        Adapters(
            gpus=wrap(adapters.gpus, looked),
            workspaces=cast("WorkspaceStore", wrap(adapters.workspaces, asked)),
            containers=wrap(adapters.containers, engine),
            readiness=wrap(adapters.readiness, looked),
            isolation=wrap(adapters.isolation, asked),
        ),
        cast("ProcessTable", wrap(processes, looked)),
    )
