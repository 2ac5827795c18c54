"""Owns translating the `gpus.*` methods."""

from __future__ import annotations

from uuid import UUID

from medforged.contract import gpus as wire
from medforged.domain.gpus import Gpu, GpuDevice
from medforged.ports.state import StateStore
from medforged.services.gpus import GpuWatch

__all__ = ["GpuHandlers"]


class GpuHandlers:
    """The `gpus.*` methods."""

    def __init__(self, watch: GpuWatch, state: StateStore) -> None:
        self._watch = watch
        self._state = state

    async def list(self, _params: wire.ListGpus) -> wire.GpuList:
        holders = await self._state.gpu_holders()
        known = await self._state.gpus()
        devices = self._watch.devices
        return wire.GpuList(
            gpus=[_to_wire(gpu, devices.get(gpu.uuid), holders.get(gpu.id)) for gpu in known],
            faults=list(self._watch.faults),
        )

    async def enable(self, params: wire.GpuRef) -> wire.GpuResult:
        return await self._result(await self._watch.enable(params.gpu_id, enabled=True))

    async def disable(self, params: wire.GpuRef) -> wire.GpuResult:
        return await self._result(await self._watch.enable(params.gpu_id, enabled=False))

    async def recheck(self, params: wire.GpuRef) -> wire.GpuResult:
        return await self._result(await self._watch.recheck(params.gpu_id))

    async def _result(self, gpu: Gpu) -> wire.GpuResult:
        holders = await self._state.gpu_holders()
        return wire.GpuResult(gpu=_to_wire(gpu, self._watch.devices.get(gpu.uuid), holders.get(gpu.id)))


def _to_wire(gpu: Gpu, device: GpuDevice | None, holder: UUID | None) -> wire.Gpu:
    return wire.Gpu(
        id=gpu.id,
        uuid=gpu.uuid,
        index=gpu.index,
        name=gpu.name,
        pci_address=gpu.pci_address,
        memory_total_bytes=gpu.memory_total_bytes,
        memory_used_bytes=device.memory_used_bytes if device else None,
        utilization_percent=device.utilization_percent if device else None,
        temperature_celsius=device.temperature_celsius if device else None,
        power_milliwatts=device.power_milliwatts if device else None,
        process_ids=list(device.process_ids) if device else [],
        enabled=gpu.enabled,
        health=wire.GpuHealth(gpu.health.value),
        reason=gpu.reason,
        quarantine=gpu.quarantine,
        session_id=holder,
    )
