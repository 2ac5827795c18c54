"""Owns following the container engine's events: each is a reason to look, and a lost stream a reason to look at all."""

from __future__ import annotations

from collections.abc import Callable

from medforged.domain.containers import ContainerEvent, ContainerEventKind
from medforged.domain.errors import MedForgeError, SessionNotFound
from medforged.domain.sessions import SessionStatus
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.services.journal import Journal, RecoveryMode
from medforged.services.records import Records
from medforged.services.settling import SessionSettling

__all__ = ["EventLoop"]

_FIRST_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 2.0
# After these a container does not run (any more). The others say nothing that a record lacks.
_ENDS = frozenset({ContainerEventKind.DIE, ContainerEventKind.DESTROY})


class EventLoop:
    """Subscribes, re-lists, follows; again after each loss. `relist` starts a pass over all sessions, `network_changed`
    has isolation re-asserted."""

    def __init__(
        self,
        *,
        containers: ContainerRuntime,
        records: Records,
        settling: SessionSettling,
        relist: Callable[[], None],
        network_changed: Callable[[], None],
        clock: Clock,
        journal: Journal,
    ) -> None:
        self._containers = containers
        self._records = records
        self._settling = settling
        self._relist = relist
        self._network_changed = network_changed
        self._clock = clock
        self._journal = journal
        self.problem: str | None = "the container engine's events are not followed yet"

    async def run(self) -> None:
        retry = _FIRST_RETRY_SECONDS
        while True:
            try:
                async with self._containers.subscribe() as events:
                    retry = _FIRST_RETRY_SECONDS
                    self._followed()
                    async for event in events:
                        await self._hear(event)
                self._lost("the stream of events ended")
            except MedForgeError as error:
                self._lost(str(error))
            except Exception as error:  # noqa: BLE001 - a defect met in one event must not end all following
                self._journal.failed(None, error=repr(error), exc_info=error, part="events")
                self._lost(f"internal error ({type(error).__name__}); the journal has the details")
            await self._clock.sleep(retry)
            retry = min(retry * 2, _LONGEST_RETRY_SECONDS)

    def _followed(self) -> None:
        if self.problem is not None:
            self._journal.note("events.followed")
        self.problem = None
        # What happened while nobody listened is found by a listing, which begins only now: no gap between the two.
        self._relist()
        self._network_changed()

    def _lost(self, problem: str) -> None:
        if self.problem is None:
            self._journal.warn("events.lost", error=problem)
            # The engine may have ended, and its containers with it.
            self._relist()
        self.problem = problem

    async def _hear(self, event: ContainerEvent) -> None:
        if event.kind is ContainerEventKind.NETWORK:
            self._network_changed()
            return
        if event.kind not in _ENDS or event.session_id is None:
            return
        try:
            session = await self._records.get(event.session_id)
        except SessionNotFound:
            return
        if session.status in (SessionStatus.STARTING, SessionStatus.RUNNING):
            self._settling.begin(session, RecoveryMode.EVENT)
