"""Owns what a GPU is: its identity, health and readings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

__all__ = ["Gpu", "GpuDevice", "GpuHealth", "GpuInventory"]


class GpuHealth(StrEnum):
    """Whether a GPU may be allocated."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One GPU as its driver reports it now.

    `uuid` is the identity (NVML's `GPU-…` string); `index` is the driver's enumeration order, which
    changes between boots and is for people to read. Memory in bytes, temperature in degrees Celsius,
    power in milliwatts, utilization in percent; a reading that the device does not offer is None.
    `fault` is None for a healthy device, else one sentence that says what is wrong.
    """

    uuid: str
    index: int
    name: str
    pci_address: str
    memory_total_bytes: int
    memory_used_bytes: int | None = None
    utilization_percent: int | None = None
    temperature_celsius: int | None = None
    power_milliwatts: int | None = None
    process_ids: tuple[int, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class GpuInventory:
    """What one look at the driver gave: the devices that answered, and one sentence for each that did not.

    A device that does not even tell its UUID cannot be a `GpuDevice`; it appears only in `faults`.
    """

    devices: tuple[GpuDevice, ...]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that the daemon knows, present or not.

    `id` is the daemon's own small integer, given to a UUID when it is first seen and never given to
    another: this is the `gpu_id` of sessions and logs. `reason` says why it is unhealthy. `quarantine` says why it
    has not been free since its last session ended, and `quarantine_session_id` which session that was.
    """

    id: int
    uuid: str
    index: int
    name: str
    pci_address: str
    memory_total_bytes: int
    enabled: bool
    health: GpuHealth
    reason: str | None = None
    quarantine: str | None = None
    quarantine_session_id: UUID | None = None

    @property
    def usable(self) -> bool:
        """Whether it may be given to a session when no session holds it."""
        return self.enabled and self.health is GpuHealth.HEALTHY and self.quarantine is None
