"""Owns simulated GPUs, for a host that has none: trials, demonstrations, scale and fault tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID, uuid5

from medforged.domain.adapters import AdapterDescription
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


class SimulatedGpuDriver:
    """GpuDriver over `count` GPUs that exist nowhere: idle, healthy, with lasting UUIDs. `reason`: why simulated ones.

    The readings are those of an idle card and stay so. A test fails a GPU, or the driver as a whole, while the
    daemon runs. Nothing here knows of containers: a GPU shows processes only when `set_processes` says so.
    """

    def __init__(
        self, count: int = 7, *, name: str = "NVIDIA GeForce RTX 5090 (simulated)", reason: str = "configured"
    ) -> None:
        self._devices = {device.uuid: device for device in (_device(index, name) for index in range(count))}
        self._reason = reason
        self._failure: str | None = None
        self._closed = False

    def describe(self) -> AdapterDescription:
        return AdapterDescription("gpus", "simulated", real=False, reason=f"{len(self._devices)} GPUs: {self._reason}")

    async def inventory(self) -> GpuInventory:
        if self._closed:
            raise GpuError("cannot read the GPUs: the driver was closed; restart medforged")
        if self._failure is not None:
            raise GpuError(f"cannot read the GPUs: {self._failure}")
        return GpuInventory(tuple(self._devices.values()))

    async def close(self) -> None:
        self._closed = True

    @property
    def uuids(self) -> tuple[str, ...]:
        """In the order of their indexes."""
        return tuple(self._devices)

    def fail(self, uuid: str, fault: str = "the GPU is lost (simulated); restore it") -> None:
        """Let one GPU be faulty from the next look on. Raises KeyError when there is none of that UUID."""
        self._devices[uuid] = replace(self._devices[uuid], fault=fault)

    def restore(self, uuid: str) -> None:
        """End a GPU's fault. Raises KeyError when there is none of that UUID."""
        self._devices[uuid] = replace(self._devices[uuid], fault=None)

    def set_processes(self, uuid: str, process_ids: Iterable[int]) -> None:
        """Let these processes run on a GPU. Raises KeyError when there is none of that UUID."""
        self._devices[uuid] = replace(self._devices[uuid], process_ids=tuple(sorted(set(process_ids))))

    def fail_driver(self, reason: str = "the driver does not answer (simulated); restore it") -> None:
        """Let every look raise GpuError, as when the kernel driver is gone."""
        self._failure = reason

    def restore_driver(self) -> None:
        self._failure = None


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
