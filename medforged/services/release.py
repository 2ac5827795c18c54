"""Owns the proof that a GPU is free: its driver shows no process of the session that held it."""

from __future__ import annotations

from medforged.domain.errors import GpuError
from medforged.domain.gpus import GpuDevice
from medforged.domain.sessions import Session
from medforged.ports.clock import Clock
from medforged.ports.gpus import GpuDriver
from medforged.ports.processes import ProcessTable

__all__ = ["GpuRelease"]

_LOOK_AGAIN_SECONDS = 0.1


class GpuRelease:
    """`patience_seconds`: how long the processes of a container that has been removed may take to leave the GPU."""

    def __init__(self, driver: GpuDriver, processes: ProcessTable, clock: Clock, *, patience_seconds: float) -> None:
        self._driver = driver
        self._processes = processes
        self._clock = clock
        self._patience = patience_seconds

    async def doubt(self, session: Session) -> str | None:
        """Why it is not proven that the session's GPU is free; None when it is. Never raises for the driver.

        Processes are given a moment to end. A driver or GPU that fails is not waited for: nothing it says proves
        anything, and it will be asked again.
        """
        deadline = self._clock.monotonic() + self._patience
        while True:
            try:
                inventory = await self._driver.inventory()
            except GpuError as error:
                return str(error)
            device = next((found for found in inventory.devices if found.uuid == session.gpu_uuid), None)
            reason, final = await self.doubt_about(session, device)
            if reason is None or final or self._clock.monotonic() >= deadline:
                return reason
            await self._clock.sleep(_LOOK_AGAIN_SECONDS)

    async def doubt_about(self, session: Session, device: GpuDevice | None) -> tuple[str | None, bool]:
        """The same from one look that was taken; with it, whether looking again soon makes no sense."""
        if device is None:
            return "the driver does not report this GPU, so nobody knows what runs on it", True
        if device.fault is not None:
            return f"nobody knows what runs on it, since {device.fault}", True
        left = await self._processes.of_container(device.process_ids, session.container_id)
        if not left:
            return None, True
        named = ", ".join(map(str, left[:5])) + (", …" if len(left) > 5 else "")
        word = "process" if len(left) == 1 else "processes"
        return f"{word} {named} of session {session.slug} still on it; see `ps` for state D, reboot if they stay", False
