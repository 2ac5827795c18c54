"""Owns NVML's life in this process: initialised when needed, again after the driver forgot it, shut down once."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pynvml

from medforged.adapters.nvml.errors import is_uninitialized

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

    def census(self, *, renew: bool = False) -> Census:
        """Count the GPUs, initialising NVML where needed, or anyway (`renew`).

        Raises NVMLError; the next call initialises it again then.
        """
        if renew:
            self.shutdown()
        try:
            return self._count()
        except pynvml.NVMLError as error:
            self.shutdown()
            if not is_uninitialized(error):
                raise
        try:
            return self._count()
        except pynvml.NVMLError:
            self.shutdown()
            raise

    def shutdown(self) -> None:
        """Safe to call at any time, also when the driver is gone."""
        if self._version is not None:
            self._version = None
            with contextlib.suppress(pynvml.NVMLError):  # what is not initialised any more needs no end
                pynvml.nvmlShutdown()

    def _count(self) -> Census:
        if self._version is None:
            # Without this flag NVML refuses to start on a host whose GPUs are all lost, and nobody would be told which.
            pynvml.nvmlInitWithFlags(pynvml.NVML_INIT_FLAG_NO_GPUS)
            self._version = ""
            self._epoch += 1
            self._version = str(pynvml.nvmlSystemGetDriverVersion())
        return Census(self._version, int(pynvml.nvmlDeviceGetCount()), self._epoch)
