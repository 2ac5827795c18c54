"""Owns what a crash needs of the host that daemons live on, one after the other: simulated or real."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from medforged.adapters.simulated.gpus import SimulatedGpuDriver
from medforged.adapters.simulated.host import SimulatedHost
from medforged.config import Settings
from tests.crash.world import World

__all__ = ["HOST", "Testbed", "gpu_driver", "gpu_processes"]

# Where a daemon keeps what is simulated of its host, below its state directory.
HOST = "simulated-host"


class Testbed(Protocol):
    """A host that is seen and changed from outside, never through the daemon. Its GPUs are simulated ones."""

    @property
    def directory(self) -> Path:
        """The daemon's state directory."""
        ...

    @property
    def settings(self) -> Settings:
        """Those of a daemon that lives here."""
        ...

    @property
    def pace(self) -> float:
        """How many times as fast as the host's the daemon's clock runs."""
        ...

    @property
    def patience_seconds(self) -> float:
        """What never happens has not happened after this long."""
        ...

    def look(self) -> World:
        """Everything at this moment; nothing is changed by looking."""
        ...

    def describe(self) -> str:
        """Everything in full, for people who look into a failure."""
        ...

    def clear(self) -> None:
        """Remove all that a daemon has left; none may live."""
        ...

    def kill_container(self, name: str) -> None:
        """End its processes, as a crash or the kernel would."""
        ...

    def remove_container(self, name: str) -> None:
        """Take it away, as somebody with rights on the engine could."""
        ...

    def restart_engine(self) -> None:
        """End all containers and the engine's streams of events."""
        ...

    async def litter(self) -> None:
        """Leave what no record explains, of each kind that can be made here; there is a file in one of the workspaces."""
        ...


def gpu_driver(testbed: Testbed) -> SimulatedGpuDriver:
    """The GPUs of the testbed, for what happens to them."""
    return SimulatedGpuDriver(testbed.settings.gpus.simulated_count, host=SimulatedHost(testbed.directory / HOST))


def gpu_processes(directory: Path) -> dict[str, tuple[int, ...]]:
    """By a GPU's UUID, the processes that were put on it in addition to those of simulated containers."""
    return {uuid: item.process_ids for uuid, item in SimulatedHost(directory / HOST).gpus.items().items()}
