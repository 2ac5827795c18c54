"""Owns the reference: what has been done to each session, and what may have become of it by that alone.

It knows nothing of services, ports or steps: wishes, accidents and troubles go in, allowed ends come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from tests.crash.world import Record, World

__all__ = ["Asked", "Death", "Life", "Reference", "Trouble"]


class Trouble(StrEnum):
    """What can be the matter while a session is not settled. Each excuses some outcomes and no others."""

    ENGINE = "the container engine does not answer, or a call of it fails"
    STUCK = "calls about this session hang"
    DISK = "the workspaces' storage fails"
    STATE = "the database fails"
    LOST = "what the database has written, it does not confirm"
    FILTER = "isolation cannot be established"
    LEAK = "isolation does not hold"
    DRIVER = "the GPU driver does not answer"
    GPU = "the session's GPU is broken"
    IDE = "the IDE does not answer"
    KILL = "the daemon was killed or restarted"


class Asked(StrEnum):
    """Whether somebody asked for a session's end; `perhaps`: the call has not been answered, or with a failure."""

    NO = "no"
    PERHAPS = "perhaps"
    YES = "yes"


class Death(StrEnum):
    """How a container came to its end by itself; the values are how messages begin that tell it."""

    EXITED = "container exited unexpectedly"
    MEMORY = "container exited unexpectedly: it ran out of memory"
    MISSING = "container missing"


@dataclass
class Life:
    """What is known of one session. `told`: a create returned it; `refused`: the create that made it said it failed."""

    id: UUID
    user: UUID
    over: bool = False
    told: bool = False
    refused: bool = False
    asked: Asked = Asked.NO
    deaths: set[Death] = field(default_factory=set)
    met: set[Trouble] = field(default_factory=set)

    def met_any(self, *troubles: Trouble) -> bool:
        return not self.met.isdisjoint(troubles)

    def complaints(self, record: Record) -> Iterator[str]:
        """What is wrong with a record that will not change by itself any more."""
        match record.status:
            case "running":
                yield from self._of_running()
            case "stopped":
                if self.asked is Asked.NO:
                    yield "is stopped, and nobody asked for it"
                if record.error_message and not self.met_any(Trouble.GPU, Trouble.DRIVER):
                    yield f"is stopped, and says {record.error_message!r}"
            case "error":
                yield from self._of_error(record)
            case other:
                yield f"is still {other}"

    def _of_running(self) -> Iterator[str]:
        if self.asked is Asked.YES:
            yield "was asked to stop, and runs"
        if self.deaths:
            yield "has lost its container, and runs"
        if self.refused and not self.met_any(Trouble.LOST):
            yield "runs, and whoever wanted it was told that it failed"

    def _of_error(self, record: Record) -> Iterator[str]:
        wanted = self.asked is not Asked.NO
        interrupted = not self.told and self.met_any(
            Trouble.KILL, Trouble.STATE, Trouble.LOST, Trouble.ENGINE, Trouble.STUCK
        )
        allowed = {
            "container_death": bool(self.deaths) or interrupted,
            "create_failed": not self.told and bool(self.deaths or self.met),
            "snapshot_failed": wanted and self.met_any(Trouble.DISK, Trouble.STUCK),
            "stop_failed": (wanted or bool(self.deaths) or not self.told)
            and self.met_any(Trouble.ENGINE, Trouble.STUCK),
        }
        message = record.error_message or ""
        if not allowed.get(record.ending or "", False):
            yield f"is in error because of {record.ending} ({message}), and nothing that happened explains it"
        if record.ending == "container_death" and not interrupted and not message.startswith(tuple(self.deaths)):
            yield f"says {message!r}, and what happened was {sorted(self.deaths)}"


@dataclass
class Reference:
    """`broken` are UUIDs of GPUs with a fault; `lingering` tells whose processes stay on a GPU, by its UUID."""

    lives: dict[UUID, Life] = field(default_factory=dict)
    troubles: set[Trouble] = field(default_factory=set)
    since: dict[Trouble, float] = field(default_factory=dict)
    """When each trouble began, by the loop's time."""
    lately: set[Trouble] = field(default_factory=set)
    """Troubles of a moment, until everything has settled again."""
    stuck: set[UUID] = field(default_factory=set)
    disabled: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    lingering: dict[str, dict[int, UUID]] = field(default_factory=dict)
    orphans: set[str] = field(default_factory=set)
    exempt: set[UUID] = field(default_factory=set)
    """While the packet filter fails: who may have been under isolation already."""

    @property
    def calm(self) -> bool:
        """Whether nothing is the matter with the host as a whole."""
        return not self.troubles

    def learn(self, world: World) -> None:
        """Meet new sessions, and note what those that have not ended go through."""
        gpus = {device.id: device.uuid for device in world.devices}
        for record in world.records:
            life = self.lives.get(record.id)
            if life is None:
                life = self.lives[record.id] = Life(record.id, UUID(record.workspace.split("/")[-2]))
            if not life.over:
                life.met |= self.troubles | self.lately
                if record.id in self.stuck:
                    life.met.add(Trouble.STUCK)
                if gpus[record.gpu_id] in self.broken:
                    life.met.add(Trouble.GPU)
            # Somebody who has ended since the last look was still there when it began.
            life.over = not record.active

    def free(self, world: World) -> list[int]:
        """The GPUs that a create has to choose from, the first of which it has to choose."""
        held = {record.gpu_id for record in world.active}
        return [
            device.id
            for device in world.devices
            if device.id not in held
            and device.quarantine is None
            and device.uuid not in self.disabled
            and device.uuid not in self.broken
        ]
