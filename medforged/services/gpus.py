"""Owns keeping the GPU table in line with the driver."""

from __future__ import annotations

from medforged.domain.errors import GpuError
from medforged.domain.gpus import Gpu, GpuDevice, GpuHealth, GpuInventory
from medforged.ports.gpus import GpuDriver
from medforged.ports.state import StateStore
from medforged.services.journal import Journal

__all__ = ["GpuWatch"]


class GpuWatch:
    """Looks at the driver, records what it says, and keeps the last readings for status pages.

    When the driver as a whole does not answer, every known GPU becomes unhealthy: a GPU that cannot be watched
    must not be given to anybody.
    """

    def __init__(self, driver: GpuDriver, state: StateStore, journal: Journal) -> None:
        self._driver = driver
        self._state = state
        self._journal = journal
        self._known: dict[str, Gpu] = {}
        self.devices: dict[str, GpuDevice] = {}
        self.faults: tuple[str, ...] = ()

    async def refresh(self) -> tuple[Gpu, ...]:
        """One look; returns all known GPUs. Never raises for a driver's failure, which becomes a fault."""
        try:
            inventory = await self._driver.inventory()
        except GpuError as error:
            inventory = GpuInventory((), (str(error),))
        self.devices = {device.uuid: device for device in inventory.devices}
        self.faults = inventory.faults
        known = await self._state.record_gpus(inventory)
        for gpu in known:
            before = self._known.get(gpu.uuid)
            if before is None:
                self._journal.note(
                    "gpu.discovered", gpu_id=gpu.id, gpu_uuid=gpu.uuid, name=gpu.name, health=gpu.health.value
                )
            elif before.health is not gpu.health:
                self._journal.gpu_changed(gpu_id=gpu.id, gpu_uuid=gpu.uuid, health=gpu.health.value, reason=gpu.reason)
        self._known = {gpu.uuid: gpu for gpu in known}
        return known

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each thing that is wrong with GPUs now."""
        unhealthy = (
            f"GPU {gpu.id} ({gpu.uuid}) is unhealthy: {gpu.reason}"
            for gpu in self._known.values()
            if gpu.health is GpuHealth.UNHEALTHY
        )
        return (*self.faults, *unhealthy)
