"""Owns the ports as one: everything through which the services touch the world."""

from __future__ import annotations

from dataclasses import dataclass

from medforged.domain.adapters import AdapterDescription
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.ports.gpus import GpuDriver
from medforged.ports.isolation import Isolation
from medforged.ports.processes import ProcessTable
from medforged.ports.readiness import ReadinessProbe
from medforged.ports.state import StateStore
from medforged.ports.workspaces import WorkspaceStore

__all__ = ["Adapters", "Parts"]


@dataclass(frozen=True, slots=True)
class Adapters:
    """One adapter a port."""

    gpus: GpuDriver
    workspaces: WorkspaceStore
    containers: ContainerRuntime
    readiness: ReadinessProbe
    isolation: Isolation

    def descriptions(self) -> tuple[AdapterDescription, ...]:
        """What each says of itself now."""
        described = (self.gpus, self.workspaces, self.containers, self.isolation)
        return tuple(adapter.describe() for adapter in described)

    async def close(self) -> None:
        await self.gpus.close()
        await self.isolation.close()
        await self.containers.close()


@dataclass(frozen=True, slots=True)
class Parts:
    """The adapters of this host, and what every host has."""

    state: StateStore
    adapters: Adapters
    processes: ProcessTable
    clock: Clock
