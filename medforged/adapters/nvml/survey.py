"""Owns what NVML is asked for a diagnosis alone: whether the driver stays awake between sessions."""

from __future__ import annotations

import contextlib

import pynvml

__all__ = ["persistence_modes"]


def persistence_modes() -> dict[str, bool]:
    """Persistence mode by UUID, of the GPUs that tell; empty where the driver does not answer. Blocks."""
    modes: dict[str, bool] = {}
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            for index in range(int(pynvml.nvmlDeviceGetCount())):
                with contextlib.suppress(pynvml.NVMLError):
                    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                    modes[str(pynvml.nvmlDeviceGetUUID(handle))] = bool(pynvml.nvmlDeviceGetPersistenceMode(handle))
        finally:
            pynvml.nvmlShutdown()
    return modes
