"""Owns choosing the adapter of each port for this host, and saying why; part of the composition root."""

from __future__ import annotations

import contextlib
from pathlib import Path

from medforged.adapters import nvml
from medforged.adapters.clock import SystemClock
from medforged.adapters.directories.store import DirectoryWorkspaceStore
from medforged.adapters.docker import DockerRuntime
from medforged.adapters.isolation import EastWestIsolation
from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.gpus import SimulatedGpuDriver
from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.adapters.simulated.readiness import SimulatedReadiness
from medforged.adapters.simulated.workspaces import SimulatedWorkspaceStore
from medforged.adapters.tcp import TcpReadiness
from medforged.adapters.zfs.detect import ZfsKind, command_store, core_store, detect
from medforged.config import Settings
from medforged.config import Workspaces as WorkspaceSettings
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.ports.gpus import GpuDriver
from medforged.ports.isolation import Isolation
from medforged.ports.parts import Adapters
from medforged.ports.workspaces import WorkspaceStore

__all__ = ["containers_of", "isolation_of", "select_adapters"]


async def select_adapters(settings: Settings) -> Adapters:
    """The real adapter wherever the host has the technology. Raises WorkspaceError for storage that cannot be used.

    What is simulated is on one host, which outlives the daemon as a real one does.
    """
    host = _simulated_host(settings)
    async with contextlib.AsyncExitStack() as stack:
        gpus = await _gpus(settings, host)
        stack.push_async_callback(gpus.close)
        workspaces = await _workspaces(settings, SystemClock(), host)
        stack.pop_all()
    simulated = settings.adapters.containers == "simulated"
    return Adapters(
        gpus=gpus,
        workspaces=workspaces,
        containers=containers_of(settings, host),
        readiness=SimulatedReadiness() if simulated else TcpReadiness(),
        isolation=isolation_of(settings, host),
    )


def _simulated_host(settings: Settings) -> SimulatedHost:
    """Nothing is made there before something simulated exists."""
    return SimulatedHost(Path(settings.daemon.state_directory) / "simulated-host")


async def _gpus(settings: Settings, host: SimulatedHost) -> GpuDriver:
    wanted = settings.adapters.gpus
    if wanted == "nvml":
        return nvml.NvmlGpuDriver()
    if wanted == "simulated":
        return SimulatedGpuDriver(settings.gpus.simulated_count, host=host)
    # A library that is there belongs to a real GPU host, even where its driver fails: nothing is simulated then.
    found = await nvml.detect()
    return found.driver or SimulatedGpuDriver(settings.gpus.simulated_count, reason=found.reason, host=host)


async def _workspaces(settings: Settings, clock: Clock, host: SimulatedHost) -> WorkspaceStore:
    places = settings.workspaces
    mount_root = Path(places.mount_root) if places.mount_root else None
    wanted = settings.adapters.workspaces
    if wanted == "simulated":
        return SimulatedWorkspaceStore(clock, host=host)
    if wanted == "directories":
        return DirectoryWorkspaceStore(Path(places.directory))
    if wanted == "zfs":
        return command_store(places.pool, clock, root=places.root, mount_root=mount_root)
    if wanted == "libzfs_core":
        return core_store(places.pool, clock, root=places.root, mount_root=mount_root)
    return await _detected(places, mount_root, clock)


async def _detected(places: WorkspaceSettings, mount_root: Path | None, clock: Clock) -> WorkspaceStore:
    found = await detect(places.pool)
    match found.kind:
        case ZfsKind.LIBZFS_CORE:
            return core_store(places.pool, clock, root=places.root, mount_root=mount_root, reason=found.reason)
        case ZfsKind.COMMANDS:
            return command_store(places.pool, clock, root=places.root, mount_root=mount_root, reason=found.reason)
        case ZfsKind.NONE:
            return DirectoryWorkspaceStore(Path(places.directory), reason=found.reason)


def containers_of(settings: Settings, host: SimulatedHost | None = None) -> ContainerRuntime:
    """The container adapter alone; `host` is what the simulated one shares with others."""
    if settings.adapters.containers == "simulated":
        return SimulatedRuntime(host=host or _simulated_host(settings))
    return DockerRuntime(instance=settings.daemon.instance, socket=Path(settings.containers.docker_socket))


def isolation_of(settings: Settings, host: SimulatedHost | None = None) -> Isolation:
    """The isolation adapter alone; `host` is what the simulated one shares with others."""
    if settings.adapters.isolation == "simulated":
        return SimulatedIsolation(host=host or _simulated_host(settings))
    return EastWestIsolation(settings.daemon.instance)
