"""Owns NVML's life in this process: initialised when needed, again after the driver forgot it, shut down once."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pynvml

__all__ = ["Census", "NvmlLibrary"]


@dataclass(frozen=True, slots=True)
class Census:
    """The driver's version, how many GPUs it counts, and which initialisation (1, 2, …) counted them."""

    driver_version: str
    count: int
    epoch: int


class NvmlLibrary:
    """Its methods block; call them from one thread at a time."""

    def __init__(self) -> None:
        self._epoch = 0
        self._version: str | None = None

    def census(self) -> Census:
        """Count the GPUs, initialising NVML where that has not been done since the last shutdown.

        Raises NVMLError; the initialisation is worth nothing then and should be shut down.
        """
        if self._version is None:
            # Without this flag NVML refuses to start on a host whose GPUs are all lost, and nobody would be told which.
            pynvml.nvmlInitWithFlags(pynvml.NVML_INIT_FLAG_NO_GPUS)
            self._version = ""
            self._epoch += 1
        self._version = self._version or str(pynvml.nvmlSystemGetDriverVersion())
        return Census(self._version, int(pynvml.nvmlDeviceGetCount()), self._epoch)

    def shutdown(self) -> None:
        """Safe to call at any time, also when the driver is gone; but not while a thread waits for events."""
        if self._version is not None:
            self._version = None
            with contextlib.suppress(pynvml.NVMLError):  # what is not initialised any more needs no end
                pynvml.nvmlShutdown()
