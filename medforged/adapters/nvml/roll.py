"""Owns the memory of which GPUs were ever seen, so that one that falls silent is still named by its UUID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medforged.adapters.nvml.devices import join_faults
from medforged.adapters.nvml.xids import XidBook
from medforged.domain.gpus import GpuDevice, GpuInventory

__all__ = ["Roll", "Silence"]

_VANISHED = "the driver does not list it any more; see `dmesg`, reboot the host, restart medforged if it was removed"


@dataclass(frozen=True, slots=True)
class Silence:
    """The GPU at an index did not tell who it is, and why."""

    index: int
    reason: str


class Roll:
    """Turns the looks at single indexes into an inventory.

    A GPU that was seen once stays in every later inventory, with a fault while it does not answer.
    """

    def __init__(self, xids: XidBook) -> None:
        self._xids = xids
        self._identities: dict[str, GpuDevice] = {}
        self._places: dict[int, str] = {}

    def forget_places(self) -> None:
        """NVML was initialised anew: an index may mean another GPU now."""
        self._places.clear()

    def assemble(self, looks: Sequence[GpuDevice | Silence]) -> GpuInventory:
        """One device or fault for each look, and a device for each GPU that was seen before and is not now."""
        answers = [self._remember(look) for look in looks if isinstance(look, GpuDevice)]
        devices = {device.uuid: device for device in answers}
        faults: list[str] = []
        for look in looks:
            if isinstance(look, Silence):
                uuid = self._places.get(look.index)
                if uuid is None or uuid in devices:
                    faults.append(f"cannot identify the GPU at index {look.index}: {look.reason}")
                else:
                    devices[uuid] = self._silent(uuid, look.reason)
        for uuid in self._identities.keys() - devices.keys():
            devices[uuid] = self._silent(uuid, _VANISHED)
        return GpuInventory(tuple(sorted(devices.values(), key=lambda gpu: (gpu.index, gpu.uuid))), tuple(faults))

    def _remember(self, device: GpuDevice) -> GpuDevice:
        known = self._identities.get(device.uuid, device)
        identity = GpuDevice(  # a failing GPU may tell its UUID and nothing else: what it said before fills the gaps
            uuid=device.uuid,
            index=device.index,
            name=device.name or known.name,
            pci_address=device.pci_address or known.pci_address,
            memory_total_bytes=device.memory_total_bytes or known.memory_total_bytes,
        )
        self._identities[device.uuid] = identity
        self._places[device.index] = device.uuid
        return replace(
            device,
            name=identity.name,
            pci_address=identity.pci_address,
            memory_total_bytes=identity.memory_total_bytes,
            fault=join_faults((device.fault, self._xids.fault_of(device.uuid))),
        )

    def _silent(self, uuid: str, reason: str) -> GpuDevice:
        return replace(self._identities[uuid], fault=join_faults((reason, self._xids.fault_of(uuid))))
