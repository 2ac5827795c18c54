"""Owns simulated GPUs, for a host that has none: trials, demonstrations, scale and fault tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID, uuid5

import msgspec

from medforged.adapters.simulated.host import SimulatedHost, Watch
from medforged.adapters.simulated.items import GpuItem, PartItem
from medforged.domain.adapters import AdapterDescription
from medforged.domain.containers import ContainerState
from medforged.domain.errors import GpuError
from medforged.domain.gpus import GpuDevice, GpuInventory

__all__ = ["SimulatedGpuDriver"]

# Simulated GPUs are the same at every start, so that the daemon recognizes them.
_NAMESPACE = UUID("5a6c3b0e-0b7f-4d5e-9a55-6d2f1c1e7a10")
_MEMORY_TOTAL = 32 * 1024**3
_MEMORY_IDLE = 17 * 1024**2
_IDLE_MILLIWATTS = 14_000
_IDLE_CELSIUS = 34
_SLOTS = 255  # one GPU to a PCI bus, bus 0 left out as on a real host
_ITEM = "gpus"


class SimulatedGpuDriver:
    """GpuDriver over `count` GPUs that exist nowhere: idle, healthy, with lasting UUIDs. `reason`: why simulated ones.

    The readings are those of an idle card and stay so. A test fails a GPU, or the driver as a whole, while the
    daemon runs; that is the `host`'s, by default one of its own. A GPU shows the process of each simulated container
    that runs on it on the same host, and those that `set_processes` and `linger` name.
    """

    def __init__(
        self,
        count: int = 7,
        *,
        name: str = "NVIDIA GeForce RTX 5090 (simulated)",
        reason: str = "configured",
        host: SimulatedHost | None = None,
    ) -> None:
        self._devices = {device.uuid: device for device in (_device(index, name) for index in range(count))}
        self._reason = reason
        self._host = host or SimulatedHost()
        self._watch = Watch(self._host.gpus, self._host.driver)
        self._closed = False

    def describe(self) -> AdapterDescription:
        return AdapterDescription("gpus", "simulated", real=False, reason=f"{len(self._devices)} GPUs: {self._reason}")

    async def inventory(self) -> GpuInventory:
        await asyncio.sleep(0)  # a real driver always lets others run here
        if self._closed:
            raise GpuError("cannot read the GPUs: the driver was closed; restart medforged")
        part = self._host.driver.get(_ITEM) or PartItem()
        if part.failure is not None:
            raise GpuError(f"cannot read the GPUs: {part.failure}")
        items, running = self._host.gpus.items(), self._running()
        return GpuInventory(
            tuple(
                replace(
                    device,
                    fault=(item := items.get(device.uuid, GpuItem())).fault,
                    process_ids=tuple(sorted({*item.process_ids, *running.get(device.uuid, ())})),
                )
                for device in self._devices.values()
            )
        )

    async def changed(self, timeout_seconds: float) -> bool:
        return await self._watch.wait(timeout_seconds)

    async def forget_faults(self, uuid: str) -> None:
        await asyncio.sleep(0)
        with self._host.gpus.exclusive():
            item = self._host.gpus.get(uuid)
            if item is not None and item.fault is not None and not item.lasting:
                self._host.gpus.put(uuid, msgspec.structs.replace(item, fault=None))

    async def close(self) -> None:
        self._closed = True
        self._watch.close()

    @property
    def uuids(self) -> tuple[str, ...]:
        """In the order of their indexes."""
        return tuple(self._devices)

    # What a test or a demonstration does to it. Raises KeyError when there is no GPU of that UUID.

    def fail(self, uuid: str, fault: str = "the GPU is lost (simulated); restore it", *, lasting: bool = True) -> None:
        """Let one GPU be faulty from the next look on; not `lasting`: an event of the past, which can be forgotten."""
        self._change(uuid, fault=fault, lasting=lasting)

    def restore(self, uuid: str) -> None:
        """End a GPU's fault."""
        self._change(uuid, fault=None, lasting=True)

    def set_processes(self, uuid: str, process_ids: Iterable[int]) -> None:
        """Let these processes run on a GPU, in addition to those of its containers."""
        self._change(uuid, process_ids=tuple(sorted(set(process_ids))))

    def linger(self, uuid: str, process_id: int) -> None:
        """Let a process stay on a GPU, whatever becomes of its container, until `set_processes` says otherwise."""
        item = self._host.gpus.get(uuid) or GpuItem()
        self.set_processes(uuid, (*item.process_ids, process_id))

    def fail_driver(self, reason: str = "the driver does not answer (simulated); restore it") -> None:
        """Let every look raise GpuError, as when the kernel driver is gone."""
        self._host.driver.put(_ITEM, PartItem(failure=reason))

    def restore_driver(self) -> None:
        self._host.driver.put(_ITEM, PartItem())

    def _change(self, uuid: str, **changes: object) -> None:
        if uuid not in self._devices:
            raise KeyError(uuid)
        with self._host.gpus.exclusive():
            self._host.gpus.put(uuid, msgspec.structs.replace(self._host.gpus.get(uuid) or GpuItem(), **changes))

    def _running(self) -> dict[str, list[int]]:
        """The processes of simulated containers by GPU. A container that cannot be read is its runtime's business."""
        found: dict[str, list[int]] = {}
        for item in self._host.containers.readable().values():
            if item.state is ContainerState.RUNNING and item.process_id is not None:
                found.setdefault(item.gpu_uuid, []).append(item.process_id)
        return found


def _device(index: int, name: str) -> GpuDevice:
    domain, slot = divmod(index, _SLOTS)
    return GpuDevice(
        uuid=f"GPU-{uuid5(_NAMESPACE, str(index))}",
        index=index,
        name=name,
        pci_address=f"{domain:04x}:{slot + 1:02x}:00.0",
        memory_total_bytes=_MEMORY_TOTAL,
        memory_used_bytes=_MEMORY_IDLE,
        utilization_percent=0,
        temperature_celsius=_IDLE_CELSIUS,
        power_milliwatts=_IDLE_MILLIWATTS,
    )
