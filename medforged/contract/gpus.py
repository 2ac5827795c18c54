"""Owns the GPU as the socket tells it."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

import msgspec

__all__ = ["Gpu", "GpuHealth", "GpuList", "GpuRef", "GpuResult", "ListGpus"]


class GpuHealth(StrEnum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A known GPU with its last readings (None: not offered). Bytes, percent, degrees Celsius, milliwatts.

    `id` is the daemon's lasting number, `index` the driver's order since the last boot, for people to read.
    `quarantine` says why it has not been free since its last session ended.
    """

    id: int
    uuid: str
    index: int
    name: str
    pci_address: str
    memory_total_bytes: int
    memory_used_bytes: int | None
    utilization_percent: int | None
    temperature_celsius: int | None
    power_milliwatts: int | None
    process_ids: list[int]
    enabled: bool
    health: GpuHealth
    reason: str | None
    quarantine: str | None
    session_id: UUID | None


class ListGpus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class GpuRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    gpu_id: int


class GpuResult(msgspec.Struct, frozen=True, kw_only=True):
    gpu: Gpu


class GpuList(msgspec.Struct, frozen=True, kw_only=True):
    gpus: list[Gpu]
    faults: list[str]
