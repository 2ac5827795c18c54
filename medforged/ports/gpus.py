"""Owns what the daemon needs from a GPU driver."""

from __future__ import annotations

from typing import Protocol

from medforged.domain.adapters import AdapterDescription
from medforged.domain.gpus import GpuInventory

__all__ = ["GpuDriver"]


class GpuDriver(Protocol):
    """Reads GPUs. One device's failure never hides the others."""

    def describe(self) -> AdapterDescription: ...

    async def inventory(self) -> GpuInventory:
        """All devices with their current readings and running processes.

        Raises GpuError only when the driver as a whole does not answer.
        """
        ...

    async def changed(self, timeout_seconds: float) -> bool:
        """Wait until a device reports an event that makes a look worthwhile (an Xid, for example).

        False after the timeout, which is all that a driver without events does. Never raises for a driver's failure.
        """
        ...

    async def forget_faults(self, uuid: str) -> None:
        """Forget what a device reported in the past, because an operator says that it was repaired.

        What is still wrong with it, the next look finds anew. A UUID that is not known: no error.
        """
        ...

    async def close(self) -> None:
        """Release the driver; safe to call twice."""
        ...
