"""Owns the container runtime over Docker: which call goes to which lane, and nothing that Docker itself knows."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from medforged.adapters.docker.commands import EngineContainers
from medforged.adapters.docker.creation import GpuInjection, check_name
from medforged.adapters.docker.engine import Engine
from medforged.adapters.docker.images import ImageIndex, parse_image
from medforged.adapters.docker.networks import EngineNetworks
from medforged.adapters.docker.subscriptions import EngineEvents
from medforged.adapters.docker.survey import Survey, network_problems, survey
from medforged.domain.adapters import AdapterDescription
from medforged.domain.containers import (
    ContainerEvent,
    ContainerInfo,
    ContainerSpec,
    ContainerSummary,
    NetworkSpec,
    SessionNetwork,
)

__all__ = ["DockerRuntime"]

_INSTANCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


class DockerRuntime:
    """Sessions' containers in a Docker engine of this host.

    `instance` tells the containers of several installations on one engine apart. `gpu_injection` None leaves it to
    the engine's abilities. Seconds: `question_seconds` bounds looks, `action_seconds` changes; a stop may take its
    grace longer. Questions and changes have a lane per container each, so that a container that hangs inside the
    engine delays nobody else, and a long stop no look at it.
    """

    def __init__(
        self,
        *,
        instance: str = "medforge",
        socket: Path = Path("/var/run/docker.sock"),
        threads: int = 16,
        question_seconds: float = 10.0,
        action_seconds: float = 60.0,
        gpu_injection: GpuInjection | None = None,
    ) -> None:
        if not _INSTANCE.fullmatch(instance):
            raise ValueError(f"instance {instance!r} must match {_INSTANCE.pattern}")
        self._engine = Engine(socket, threads=threads, question_seconds=question_seconds, action_seconds=action_seconds)
        self._images = ImageIndex()
        self._containers = EngineContainers(instance, self._images, gpu_injection)
        self._networks = EngineNetworks(instance)
        self._events = EngineEvents(self._engine, instance)
        self._gpu_injection = gpu_injection

    def describe(self) -> AdapterDescription:
        at = self._engine.connection
        if at is None:
            reason = f"not connected; the engine is looked for at {self._engine.socket}"
        else:
            injection = self._gpu_injection or (GpuInjection.CDI if at.has_cdi else GpuInjection.HOOK)
            reason = f"Docker {at.version}, API {at.api_version}, at {self._engine.socket}; GPUs by {injection.value}"
        return AdapterDescription(port="containers", adapter="docker", real=True, reason=reason)

    async def ping(self) -> None:
        await self._engine.ask("reach the container engine", "ping", lambda at: at.client.ping())

    async def ensure_network(self, spec: NetworkSpec) -> SessionNetwork:
        check_name(spec.name)
        return await self._engine.act(
            f"create network {spec.name}", "networks", lambda at: self._networks.ensure(at.client, spec)
        )

    async def network(self, name: str) -> SessionNetwork:
        check_name(name)
        return await self._engine.ask(
            f"read network {name}", "networks", lambda at: self._networks.read(at.client, name)
        )

    async def remove_network(self, name: str) -> None:
        check_name(name)
        await self._engine.act(f"remove network {name}", "networks", lambda at: self._networks.remove(at.client, name))

    async def resolve_image(self, image: str) -> str:
        parse_image(image)
        known = self._images.known(image)
        if known is not None:
            return known
        return await self._engine.ask(
            f"look up image {image}", image, lambda at: self._images.resolve(at.client, image)
        )

    async def create(self, spec: ContainerSpec) -> str:
        check_name(spec.name)
        return await self._engine.act(
            f"create container {spec.name}", spec.name, lambda at: self._containers.create(at, spec)
        )

    async def start(self, name: str) -> ContainerInfo:
        check_name(name)
        return await self._engine.act(f"start container {name}", name, lambda at: self._containers.start(at, name))

    async def stop(self, name: str, grace_seconds: float) -> None:
        check_name(name)
        await self._engine.act(
            f"stop container {name}",
            name,
            lambda at: self._containers.stop(at, name, grace_seconds),
            wait_seconds=max(1.0, grace_seconds),
        )

    async def remove(self, name: str) -> None:
        check_name(name)
        await self._engine.act(f"remove container {name}", name, lambda at: self._containers.remove(at, name))

    async def inspect(self, name: str) -> ContainerInfo:
        check_name(name)
        return await self._engine.ask(f"inspect container {name}", name, lambda at: self._containers.inspect(at, name))

    async def containers(self) -> tuple[ContainerSummary, ...]:
        return await self._engine.ask("list containers", "list", self._containers.list)

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[ContainerEvent]]:
        return self._events.subscribe()

    async def logs(self, name: str, lines: int) -> str:
        check_name(name)
        return await self._engine.ask(
            f"read the log of container {name}", f"log of {name}", lambda at: self._containers.logs(at, name, lines)
        )

    async def survey(self) -> Survey:
        """How the engine is set up, for a diagnosis."""
        return await self._engine.ask("ask the container engine about itself", "survey", lambda at: survey(at.client))

    async def network_problems(self, spec: NetworkSpec) -> tuple[str, ...] | None:
        """What about the sessions' network is not as it has to be, for a diagnosis; None where there is none yet."""
        check_name(spec.name)
        return await self._engine.ask(
            f"read network {spec.name}", "networks", lambda at: network_problems(at.client, spec)
        )

    async def close(self) -> None:
        self._events.close()
        await self._engine.close()
