"""Owns the `gpus` port over NVML: one look at all GPUs, in which no GPU can hide or delay another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import pynvml

from medforged.adapters.nvml.devices import NvmlDevice
from medforged.adapters.nvml.errors import explain_device, explain_driver, is_uninitialized
from medforged.adapters.nvml.events import EventWatch
from medforged.adapters.nvml.lanes import Lane, Stuck
from medforged.adapters.nvml.library import Census, NvmlLibrary
from medforged.adapters.nvml.roll import Roll, Silence
from medforged.adapters.nvml.xids import XidBook
from medforged.domain.adapters import AdapterDescription
from medforged.domain.errors import GpuError
from medforged.domain.gpus import GpuDevice, GpuInventory

__all__ = ["NvmlGpuDriver"]

T = TypeVar("T")
_STUCK = "see `dmesg` for NVRM messages; a call stuck in the kernel driver ends only with a reboot"


class NvmlGpuDriver:
    """GpuDriver over the NVIDIA driver of this host.

    NVML is initialised by the first `inventory()`, and again by a later one after a failure or a reset of the
    driver, so a driver that comes back is found without a restart. `timeout_seconds` bounds each look at a
    GPU; `attach_timeout_seconds` bounds the first one after an initialisation, in which the driver may wake the
    GPU up (seconds each, one after the other, on hosts without persistence mode). A GPU that does not answer
    in time is reported as faulty, by its UUID when that is known. Its thread stays inside the library (see
    `Lane`): the GPU stays faulty, without further waiting, until that thread comes back. Events are waited for by a
    thread of their own (see `EventWatch`, and for `event_retry_seconds`); where they fail, the looks go on.
    """

    def __init__(
        self,
        *,
        timeout_seconds: float = 5.0,
        attach_timeout_seconds: float = 30.0,
        event_retry_seconds: float = 30.0,
    ) -> None:
        self._timeout = timeout_seconds
        self._attach_timeout = attach_timeout_seconds
        self._looking = asyncio.Lock()
        self._library = NvmlLibrary()
        self._library_lane = Lane("nvml")
        self._lanes: dict[int, Lane] = {}
        self._devices: dict[int, NvmlDevice] = {}
        self._attached: set[int] = set()
        self._events = EventWatch(retry_seconds=event_retry_seconds)
        self._epoch = 0
        self._initialised = False
        self._xids = XidBook()
        self._roll = Roll(self._xids)
        self._state = "not asked yet"
        self._closed = False

    def describe(self) -> AdapterDescription:
        return AdapterDescription("gpus", "nvml", real=True, reason=f"libnvidia-ml.so.1: {self._state}")

    async def inventory(self) -> GpuInventory:
        async with self._looking:
            looks = await self._look(renew=False)
            if looks is None:  # the driver was reset while we looked: initialise anew and look once more
                looks = await self._look(renew=True)
            if looks is None:
                raise self._failed("NVML loses its initialisation at once; see `dmesg` for NVRM messages")
            return self._roll.assemble(looks)

    async def changed(self, timeout_seconds: float) -> bool:
        """True also when events begin or cease to be watched: what happened in between, only a look can tell."""
        return await self._events.changed(timeout_seconds)

    async def forget_faults(self, uuid: str) -> None:
        self._xids.forget(uuid)

    async def close(self) -> None:
        """Takes at most `timeout_seconds`, whatever the driver does; every later `inventory()` raises GpuError.

        NVML is shut down only when no thread is inside it: with a stuck one that is left to the end of the process.
        """
        self._closed = True
        devices, self._devices = self._devices, {}
        with contextlib.suppress(TimeoutError, Stuck):
            async with asyncio.timeout(self._timeout):
                await asyncio.gather(
                    self._events.end(timeout_seconds=self._timeout),
                    *(self._run(index, device.release) for index, device in devices.items()),
                )
                await self._library_lane.run(self._library.shutdown, timeout_seconds=self._timeout)

    async def _look(self, *, renew: bool) -> list[GpuDevice | Silence] | None:
        """A look at each index; None when NVML turned out not to be initialised any more."""
        self._raise_if_closed()
        census = await self._census(renew=renew)
        self._raise_if_closed()
        if census.epoch != self._epoch:
            self._epoch = census.epoch
            self._devices.clear()  # their event queues ended with the initialisation that made them
            self._attached.clear()
            self._roll.forget_places()
        looks = await asyncio.gather(*(self._look_at(index) for index in range(census.count)))
        found = [look for look in looks if look is not None]
        if len(found) != len(looks):
            return None
        if not self._closed:
            self._events.begin(look.index for look in found if isinstance(look, GpuDevice))
        return found

    async def _census(self, *, renew: bool) -> Census:
        timeout = self._timeout if self._initialised else self._attach_timeout
        self._initialised = False
        try:
            if renew:
                await self._shut_down(timeout)
            try:
                census = await self._count(timeout)
            except pynvml.NVMLError as error:
                if not is_uninitialized(error):
                    raise
                census = await self._count(timeout)  # the driver was reset since the last look
        except pynvml.NVMLError as error:
            raise self._failed(explain_driver(error)) from error
        except Stuck as stuck:
            raise self._failed(f"NVML {stuck}; {_STUCK}") from stuck
        self._initialised = True
        self._state = f"driver {census.driver_version}, {census.count} GPUs"
        return census

    async def _count(self, seconds: float) -> Census:
        """Raises NVMLError, and the next call initialises NVML anew then."""
        try:
            return await self._library_lane.run(self._library.census, timeout_seconds=seconds)
        except pynvml.NVMLError:
            await self._shut_down(seconds)
            raise

    async def _shut_down(self, seconds: float) -> None:
        with contextlib.suppress(Stuck):  # a stuck thread must not keep a driver from coming back
            await self._events.end(timeout_seconds=self._timeout)
        await self._library_lane.run(self._library.shutdown, timeout_seconds=seconds)

    async def _look_at(self, index: int) -> GpuDevice | Silence | None:
        device = self._devices.setdefault(index, NvmlDevice(index, self._xids))
        try:
            look = await self._run(index, device.read)
        except pynvml.NVMLError as error:
            return None if is_uninitialized(error) else Silence(index, explain_device(error, "identity"))
        except ValueError as error:  # bytes that are no text
            return Silence(index, f"cannot read its identity: {error}")
        except Stuck as stuck:
            return Silence(index, f"it {stuck}; {_STUCK}")
        self._attached.add(index)
        return look

    async def _run(self, index: int, call: Callable[[], T]) -> T:
        lane = self._lanes.setdefault(index, Lane(f"nvml-{index}"))
        timeout = self._timeout if index in self._attached else self._attach_timeout
        return await lane.run(call, timeout_seconds=timeout)

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise GpuError("cannot read the GPUs: the driver was closed; restart medforged")

    def _failed(self, reason: str) -> GpuError:
        self._state = reason
        return GpuError(f"cannot read the GPUs: {reason}")
