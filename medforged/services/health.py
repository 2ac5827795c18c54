"""Owns what the daemon says about its own health."""

from __future__ import annotations

from dataclasses import dataclass

from medforged.domain.errors import ContainerError
from medforged.domain.gpus import GpuHealth
from medforged.domain.packs import Pack
from medforged.ports.containers import ContainerRuntime
from medforged.ports.state import StateStore
from medforged.services.gpus import GpuWatch
from medforged.services.isolation import IsolationGuard
from medforged.services.recovery import RecoveryLoop

__all__ = ["Finding", "HealthCheck"]


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
        isolation: IsolationGuard,
        containers: ContainerRuntime,
        gpus: GpuWatch,
        state: StateStore,
        packs: tuple[Pack, ...],
    ) -> None:
        self._recovery = recovery
        self._isolation = isolation
        self._containers = containers
        self._gpus = gpus
        self._state = state
        self._packs = packs

    async def findings(self) -> tuple[Finding, ...]:
        return (
            Finding("recovery", self._recovery.problem if self._recovery.alive else "the recovery loop is not running"),
            Finding("isolation", self._isolation.problem),
            Finding("containers", await self._engine()),
            Finding("gpus", await self._devices()),
            Finding("packs", await self._images()),
        )

    async def _images(self) -> str | None:
        if not self._packs:
            return "no pack is configured; set packs.default_image"
        try:
            for pack in self._packs:
                await self._containers.resolve_image(pack.image)
        except ContainerError as error:
            return str(error)
        return None

    async def _engine(self) -> str | None:
        try:
            await self._containers.ping()
        except ContainerError as error:
            return str(error)
        return None

    async def _devices(self) -> str | None:
        known = await self._state.gpus()
        if any(gpu.enabled and gpu.health is GpuHealth.HEALTHY for gpu in known):
            return None
        return "; ".join(self._gpus.problems) or "no GPU is enabled and healthy; see `medforgectl gpus`"
