"""Owns what the daemon says about its own health."""

from __future__ import annotations

from dataclasses import dataclass

from medforged.domain.errors import ContainerError
from medforged.domain.packs import Pack
from medforged.domain.sessions import SessionStatus
from medforged.ports.containers import ContainerRuntime
from medforged.ports.state import StateStore
from medforged.services.bounded import bounded
from medforged.services.events import EventLoop
from medforged.services.gpus import GpuWatch
from medforged.services.isolation import IsolationGuard
from medforged.services.recovery import RecoveryLoop

__all__ = ["Finding", "HealthCheck"]

# An engine that hangs must not take the answer about itself with it.
_ENGINE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One part and what is wrong with it; None when it is well."""

    name: str
    problem: str | None


class HealthCheck:
    """Asks each part; a part that cannot serve sessions is a problem, a single sick GPU is not."""

    def __init__(
        self,
        *,
        recovery: RecoveryLoop,
        events: EventLoop,
        isolation: IsolationGuard,
        containers: ContainerRuntime,
        gpus: GpuWatch,
        state: StateStore,
        packs: tuple[Pack, ...],
    ) -> None:
        self._recovery = recovery
        self._events = events
        self._isolation = isolation
        self._containers = containers
        self._gpus = gpus
        self._state = state
        self._packs = packs

    async def findings(self) -> tuple[Finding, ...]:
        return (
            Finding("recovery", self._recovery.problem if self._recovery.alive else "the recovery loop is not running"),
            Finding("events", self._events.problem),
            Finding("isolation", await self._isolated()),
            Finding("containers", await self._engine()),
            Finding("gpus", await self._devices()),
            Finding("packs", await self._images()),
        )

    async def _isolated(self) -> str | None:
        problem = self._isolation.problem
        if problem is None:
            return None
        exposed = [session.slug for session in await self._state.active() if session.status is SessionStatus.RUNNING]
        return f"{problem}; running without it: {', '.join(exposed)}" if exposed else problem

    async def _images(self) -> str | None:
        if not self._packs:
            return "no pack is configured; set packs.default_image"
        try:
            for pack in self._packs:
                await bounded(
                    self._containers.resolve_image(pack.image),
                    _ENGINE_SECONDS,
                    ContainerError,
                    f"cannot look up image {pack.image}",
                )
        except ContainerError as error:
            return str(error)
        return None

    async def _engine(self) -> str | None:
        try:
            await bounded(self._containers.ping(), _ENGINE_SECONDS, ContainerError, "cannot reach the container engine")
        except ContainerError as error:
            return str(error)
        return None

    async def _devices(self) -> str | None:
        if any(gpu.usable for gpu in await self._state.gpus()):
            return None
        return (
            "; ".join(self._gpus.problems) or "no GPU is enabled, healthy and out of quarantine; see `medforgectl gpus`"
        )
