"""Owns the question whether this host has NVML at all."""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass

from medforged.adapters.nvml.gpus import NvmlGpuDriver
from medforged.adapters.nvml.lanes import Lane, Stuck
from medforged.domain.errors import GpuError

__all__ = ["Detection", "detect"]

_LIBRARY = "libnvidia-ml.so.1"


@dataclass(frozen=True, slots=True)
class Detection:
    """The driver to use, or None where this host has no NVML, and the reason in one sentence."""

    driver: NvmlGpuDriver | None
    reason: str


async def detect(*, timeout_seconds: float = 5.0, attach_timeout_seconds: float = 30.0) -> Detection:
    """Find NVML and look at the GPUs once.

    A host with the library gets a driver even where that first look fails (kernel driver not loaded,
    versions that do not match, …): every `inventory()` tries anew, and raises GpuError with the remedy
    until it succeeds. `reason` is the same as in the driver's description then.
    """
    try:
        missing = await Lane("nvml-detect").run(_missing, timeout_seconds=attach_timeout_seconds)
    except Stuck:
        missing = False  # something is there, and its look will say what ails it
    if missing:
        return Detection(None, f"{_LIBRARY} is not installed")
    driver = NvmlGpuDriver(timeout_seconds=timeout_seconds, attach_timeout_seconds=attach_timeout_seconds)
    with contextlib.suppress(GpuError):  # kept in the driver's description
        await driver.inventory()
    return Detection(driver, driver.describe().reason)


def _missing() -> bool:
    """Whether the dynamic loader finds no such library; one that is there and cannot be loaded is not missing."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError as error:
        return str(error).startswith(f"{_LIBRARY}: cannot open shared object file: No such file")
    return False
