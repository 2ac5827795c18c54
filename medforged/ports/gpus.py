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

    async def close(self) -> None:
        """Release the driver; safe to call twice."""
        ...
