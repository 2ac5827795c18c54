"""Owns keeping the GPU table in line with the driver, and ending quarantines."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from medforged.domain.containers import ContainerState
from medforged.domain.errors import ContainerError, GpuError
from medforged.domain.gpus import Gpu, GpuDevice, GpuHealth, GpuInventory
from medforged.domain.sessions import SessionStatus
from medforged.ports.containers import ContainerRuntime
from medforged.ports.gpus import GpuDriver
from medforged.ports.state import SessionChange, StateStore
from medforged.services.bounded import bounded
from medforged.services.journal import Journal
from medforged.services.records import Records
from medforged.services.release import GpuRelease

__all__ = ["GpuWatch"]

# A container of which nothing is heard for so long keeps its GPU in quarantine, and holds up no other look.
_LOOK_SECONDS = 2.0


class GpuWatch:
    """Looks at the driver, records what it says, and keeps the last readings for status pages.

    When the driver as a whole does not answer, every known GPU becomes unhealthy: a GPU that cannot be watched
    must not be given to anybody.
    """

    def __init__(
        self,
        *,
        driver: GpuDriver,
        state: StateStore,
        records: Records,
        containers: ContainerRuntime,
        release: GpuRelease,
        journal: Journal,
    ) -> None:
        self._driver = driver
        self._state = state
        self._records = records
        self._containers = containers
        self._release = release
        self._journal = journal
        self._serial = asyncio.Lock()
        self.known: dict[str, Gpu] = {}
        """Every GPU that was ever seen, by UUID, as it was recorded at the last look or decision."""
        self.devices: dict[str, GpuDevice] = {}
        self.faults: tuple[str, ...] = ()

    async def refresh(self) -> tuple[Gpu, ...]:
        """One look; returns all known GPUs. Raises StateError alone: a driver's failure becomes a fault."""
        async with self._serial:
            return await self._refresh()

    async def _refresh(self) -> tuple[Gpu, ...]:
        try:
            inventory = await self._driver.inventory()
        except GpuError as error:
            inventory = GpuInventory((), (str(error),))
        self.devices = {device.uuid: device for device in inventory.devices}
        self.faults = inventory.faults
        known = await self._state.record_gpus(inventory)
        for gpu in known:
            before = self.known.get(gpu.uuid)
            if before is None:
                self._journal.note(
                    "gpu.discovered", gpu_id=gpu.id, gpu_uuid=gpu.uuid, name=gpu.name, health=gpu.health.value
                )
            elif before.health is not gpu.health:
                self._journal.gpu_changed(gpu_id=gpu.id, gpu_uuid=gpu.uuid, health=gpu.health.value, reason=gpu.reason)
                await self._tell_its_session(gpu)
        self.known = {gpu.uuid: gpu for gpu in known}
        return known

    async def release_free(self) -> tuple[Gpu, ...]:
        """Refresh, and end the quarantine of each GPU that is seen to be free; returns those."""
        released = []
        for gpu in await self.refresh():
            if gpu.quarantine is None:
                continue
            doubt = await self._doubt(gpu)
            if doubt is None:
                released.append(await self._state.release_gpu(gpu.id))
                self.known[gpu.uuid] = replace(self.known[gpu.uuid], quarantine=None)
                self._journal.note("gpu.released", gpu_id=gpu.id, gpu_uuid=gpu.uuid, after=gpu.quarantine)
            elif doubt != gpu.quarantine:
                await self._state.explain_gpu(gpu.id, doubt)
        return tuple(released)

    async def recheck(self, gpu_id: int) -> Gpu:
        """Forget what a GPU reported in the past, and look again. Raises GpuNotFound."""
        gpu = await self._state.gpu(gpu_id)
        await self._driver.forget_faults(gpu.uuid)
        await self.release_free()
        return await self._state.gpu(gpu_id)

    async def enable(self, gpu_id: int, *, enabled: bool) -> Gpu:
        """Raises GpuNotFound."""
        gpu = await self._state.enable_gpu(gpu_id, enabled=enabled)
        if gpu.uuid in self.known:
            self.known[gpu.uuid] = replace(self.known[gpu.uuid], enabled=enabled)
        self._journal.note("gpu.enabled" if enabled else "gpu.disabled", gpu_id=gpu.id, gpu_uuid=gpu.uuid)
        return gpu

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each thing that is wrong with GPUs now."""
        named = ((f"GPU {gpu.id} ({gpu.uuid})", gpu) for gpu in self.known.values())
        wrong = (
            f"{name} is unhealthy: {gpu.reason}"
            if gpu.health is GpuHealth.UNHEALTHY
            else f"{name} is in quarantine: {gpu.quarantine}"
            for name, gpu in named
            if gpu.health is GpuHealth.UNHEALTHY or gpu.quarantine is not None
        )
        return (*self.faults, *wrong)

    async def _doubt(self, gpu: Gpu) -> str | None:
        """What is left of the session that held it last, a container or processes; None when nothing is."""
        if gpu.quarantine_session_id is None:
            return None
        session = await self._records.get(gpu.quarantine_session_id)
        try:
            seen = await bounded(
                self._containers.inspect(session.container_name),
                _LOOK_SECONDS,
                ContainerError,
                f"cannot inspect container {session.container_name}",
            )
        except ContainerError as error:
            return str(error)
        if seen.state is not ContainerState.MISSING:
            return f"container {session.container_name} is still there ({seen.state.value}), and is being removed"
        reason, _ = await self._release.doubt_about(session, self.devices.get(gpu.uuid))
        return reason

    async def _tell_its_session(self, gpu: Gpu) -> None:
        """A running session whose GPU is broken goes on, since its files are worth having; but it is told."""
        if gpu.health is GpuHealth.HEALTHY:
            return
        holder = (await self._state.gpu_holders()).get(gpu.id)
        session = await self._records.get(holder) if holder is not None else None
        if session is None or session.status is not SessionStatus.RUNNING:
            return
        problem = f"GPU {gpu.id} is unhealthy: {gpu.reason}"
        self._journal.told(session, problem)
        await self._records.notice(session, SessionChange(error_message=problem))
