"""Owns the fake of the `containers` port: the simulated runtime, with a journal of calls and calls that can be held."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.domain.adapters import AdapterDescription
from medforged.domain.containers import ContainerLimits, ContainerSpec, container_name

PINNED_IMAGE = f"fake/pack@sha256:{'ab' * 32}"


class FakeRuntime(SimulatedRuntime):
    """ContainerRuntime for tests of what uses it.

    `journal` has every call in its order, as "<method> <name>". `hold("create")` lets calls of that method wait
    before they have any effect, until `release("create")`; `arrived("create")` waits for one to be held.
    """

    def __init__(self, *, images: tuple[str, ...] | None = None) -> None:
        super().__init__(images=images)
        self.journal: list[str] = []
        self._held: dict[str, asyncio.Event] = {}
        self._arrivals: dict[str, asyncio.Event] = {}

    def describe(self) -> AdapterDescription:
        return AdapterDescription("containers", "fake", real=False, reason="a test runs")

    def hold(self, operation: str) -> None:
        self._held[operation] = asyncio.Event()
        self._arrivals[operation] = asyncio.Event()

    def release(self, operation: str) -> None:
        self._held.pop(operation).set()

    async def arrived(self, operation: str) -> None:
        await self._arrivals[operation].wait()

    async def _enter(self, operation: str, subject: str) -> None:
        self.journal.append(f"{operation} {subject}".rstrip())
        held = self._held.get(operation)
        if held is not None:
            self._arrivals[operation].set()
            await held.wait()
        await super()._enter(operation, subject)


def container_spec(
    slug: str = "abcd2345",
    *,
    session_id: UUID | None = None,
    network: str = "fake-sessions",
    image: str = PINNED_IMAGE,
    workspace: Path = Path("/tank/workspaces/fake"),
    environment: tuple[tuple[str, str], ...] = (),
    limits: ContainerLimits | None = None,
) -> ContainerSpec:
    """A specification that is right in every part, with a simulated GPU."""
    return ContainerSpec(
        name=container_name(slug),
        session_id=session_id or uuid4(),
        slug=slug,
        image=image,
        network=network,
        workspace=workspace,
        gpu_uuid="GPU-simulated",
        gpu_simulated=True,
        environment=(("NVIDIA_VISIBLE_DEVICES", "GPU-simulated"), *environment),
        limits=limits or ContainerLimits(memory_bytes=64 << 20, shm_bytes=16 << 20, cpus=0.5, pids=32),
    )
