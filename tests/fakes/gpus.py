"""Owns the fake of the `gpus` port: an inventory that a test writes down, and a look that a test can hold up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from uuid import NAMESPACE_OID, uuid5

from medforged.domain.adapters import AdapterDescription
from medforged.domain.errors import GpuError
from medforged.domain.gpus import GpuDevice, GpuInventory


def gpu_device(number: int, *, fault: str | None = None, process_ids: Iterable[int] = ()) -> GpuDevice:
    """A plausible GPU; the same number gives the same GPU."""
    return GpuDevice(
        uuid=f"GPU-{uuid5(NAMESPACE_OID, f'fake {number}')}",
        index=number,
        name="Fake GPU",
        pci_address=f"0000:{number + 1:02x}:00.0",
        memory_total_bytes=8 * 1024**3,
        process_ids=tuple(process_ids),
        fault=fault,
    )


class FakeGpuDriver:
    """GpuDriver whose state is its attributes; set them at any time."""

    def __init__(self, count: int = 2) -> None:
        self.devices = {device.uuid: device for device in (gpu_device(number) for number in range(count))}
        self.faults: tuple[str, ...] = ()
        self.error: str | None = None
        """What GpuError says after "cannot read the GPUs: "; None while the driver answers."""
        self.answering = asyncio.Event()
        """Cleared by a test that wants looks to wait."""
        self.answering.set()
        self.looks = 0
        self.closed = False
        self._reported: dict[str, str] = {}
        self._event = asyncio.Event()

    @property
    def uuids(self) -> tuple[str, ...]:
        return tuple(self.devices)

    def change(self, uuid: str, *, fault: str | None = None, process_ids: Iterable[int] = ()) -> None:
        """Give one GPU this fault (None: healthy) and these processes."""
        self.devices[uuid] = replace(self.devices[uuid], fault=fault, process_ids=tuple(sorted(set(process_ids))))

    def remove(self, uuid: str) -> None:
        """Let the driver list a GPU no longer."""
        del self.devices[uuid]

    def report(self, uuid: str, fault: str | None = None) -> None:
        """Let a GPU report an event, which wakes whoever waits; a fault stays until it is forgotten."""
        if fault is not None:
            self._reported[uuid] = fault
        self._event.set()

    def describe(self) -> AdapterDescription:
        return AdapterDescription("gpus", "fake", real=False, reason="a test runs")

    async def inventory(self) -> GpuInventory:
        self.looks += 1
        await self.answering.wait()
        if self.closed:
            raise GpuError("cannot read the GPUs: the driver was closed; make another")
        if self.error is not None:
            raise GpuError(f"cannot read the GPUs: {self.error}")
        devices = sorted((self._seen(device) for device in self.devices.values()), key=lambda device: device.index)
        return GpuInventory(tuple(devices), self.faults)

    async def changed(self, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return not self.closed

    async def forget_faults(self, uuid: str) -> None:
        self._reported.pop(uuid, None)

    async def close(self) -> None:
        self.closed = True

    def _seen(self, device: GpuDevice) -> GpuDevice:
        faults = [fault for fault in (device.fault, self._reported.get(device.uuid)) if fault]
        return replace(device, fault="; also ".join(faults) or None)
