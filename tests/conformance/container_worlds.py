"""Owns the worlds of the `containers` suite: a runtime, and what a test can do to what it runs."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol

from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.domain.containers import ContainerInfo, ContainerSpec, ContainerState, NetworkSpec
from medforged.ports.containers import ContainerRuntime
from tests.fakes.containers import container_spec
from tests.host import docker_world, tiny_image


class World(Protocol):
    """A runtime and what happens around it."""

    runtime: ContainerRuntime
    network: NetworkSpec

    def spec(self, *, says: str = "") -> ContainerSpec:
        """A container of its own that runs until it is stopped."""
        ...

    async def started(self, spec: ContainerSpec) -> ContainerInfo:
        """Create and start it, and wait until it has said what it says."""
        ...

    async def end(self, name: str, exit_code: int) -> None:
        """Let its program end by itself."""
        ...

    async def ended(self, name: str) -> bool:
        """Whether its program has ended."""
        ...

    def short_lived(self) -> ContainerSpec:
        """A container whose program ends at once."""
        ...

    def occupy(self, name: str) -> None:
        """Let somebody else make a container of this name."""
        ...

    def occupied(self, name: str) -> bool:
        """Whether that container is still there and runs."""
        ...


class SimulatedWorld:
    def __init__(self, runtime: SimulatedRuntime, image: str) -> None:
        self.runtime: ContainerRuntime = runtime
        self._simulated = runtime
        self._image = image
        self._says: dict[str, str] = {}
        subnet = IPv4Network("172.28.99.0/24")
        self.network = NetworkSpec("sim", subnet, subnet[1], IPv4Network("172.28.99.128/25"), "sim0")
        self._taken: set[str] = set()

    def spec(self, *, says: str = "") -> ContainerSpec:
        spec = container_spec(docker_world.new_slug(), network=self.network.name, image=self._image)
        self._says[spec.name] = says
        return spec

    async def started(self, spec: ContainerSpec) -> ContainerInfo:
        await self.runtime.create(spec)
        info = await self.runtime.start(spec.name)
        self._simulated.say(spec.name, self._says[spec.name])
        return info

    async def end(self, name: str, exit_code: int) -> None:
        self._simulated.die(name, exit_code=exit_code)

    async def ended(self, name: str) -> bool:
        return (await self.runtime.inspect(name)).state is ContainerState.EXITED

    def short_lived(self) -> ContainerSpec:
        spec = self.spec()
        self._simulated.die_on_start(spec.name, exit_code=3)
        return spec

    def occupy(self, name: str) -> None:
        self._simulated.occupy(name)
        self._taken.add(name)

    def occupied(self, name: str) -> bool:
        return name in self._taken


@dataclass
class DockerWorld:
    runtime: ContainerRuntime
    network: NetworkSpec
    image: str
    workspace: Path
    foreign: list[str]

    def spec(self, *, says: str = "") -> ContainerSpec:
        # The words travel in the environment; the loop ends with the status that `end` writes.
        program = 'printf "%s" "$SAYS"; echo said > /tmp/said; while ! [ -s /tmp/end ]; do sleep 0.02; done; exit $(cat /tmp/end)'
        return docker_world.spec(
            self.network.name, self.image, self.workspace, program=program, environment=(("SAYS", says),)
        )

    async def started(self, spec: ContainerSpec) -> ContainerInfo:
        await self.runtime.create(spec)
        info = await self.runtime.start(spec.name)

        async def said() -> bool:
            return bool(tiny_image.docker("exec", spec.name, "sh", "-c", "cat /tmp/said || true"))

        await docker_world.until(said)
        return info

    async def end(self, name: str, exit_code: int) -> None:
        tiny_image.docker("exec", name, "sh", "-c", f"echo {exit_code} > /tmp/end")
        await docker_world.until(lambda: self.ended(name))

    async def ended(self, name: str) -> bool:
        return (await self.runtime.inspect(name)).state is ContainerState.EXITED

    def short_lived(self) -> ContainerSpec:
        return docker_world.spec(self.network.name, self.image, self.workspace, program="exit 3")

    def occupy(self, name: str) -> None:
        tiny_image.docker("run", "--detach", "--network", "none", "--name", name, self.image.partition("@")[2])
        self.foreign.append(name)

    def occupied(self, name: str) -> bool:
        return docker_world.inspected(name)["State"]["Running"] is True
