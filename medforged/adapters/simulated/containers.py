"""Owns simulated containers and their network, in memory: trials, demonstrations, scale and fault tests.

Nothing runs. A container that has been started is running until it is stopped, killed by `die` or found dead after
the number of looks that `die_after_looks` gives it. There is no time in here apart from one configurable delay.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from medforged.domain.adapters import AdapterDescription
from medforged.domain.containers import (
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    Endpoint,
    NetworkSpec,
    SessionNetwork,
)
from medforged.domain.errors import ContainerError, ContainerMissing, ContainerUnavailable

__all__ = ["SimulatedRuntime"]

_PINNED = re.compile(r"(?:.+@)?(sha256:[0-9a-f]{64})")
# Above the kernel's largest process id (PID_MAX_LIMIT, 2^22): no mistake can ever signal a real process.
_FIRST_PROCESS_ID = (1 << 22) + 1
_MAX_LOG_BYTES = 1 << 20
_KILLED = 137


@dataclass(slots=True)
class _Container:
    spec: ContainerSpec
    id: str
    state: ContainerState = ContainerState.CREATED
    address: IPv4Address | None = None
    process_id: int | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    dies_after: int | None = None
    output: list[str] = field(default_factory=list)


class SimulatedRuntime:
    """ContainerRuntime over containers that exist nowhere.

    `images` are the pinned references that resolve; None lets every one. Each call takes `latency_seconds`.
    """

    def __init__(self, *, latency_seconds: float = 0.0, images: Iterable[str] | None = None) -> None:
        self._latency_seconds = latency_seconds
        self._images = None if images is None else set(images)
        self._containers: dict[str, _Container] = {}
        self._foreign: set[str] = set()
        self._networks: dict[str, NetworkSpec] = {}
        self._failures: dict[str, deque[ContainerError]] = {}
        self._outage: str | None = None
        self._die_on_start: dict[str, int] = {}
        self._started = 0

    # The port.

    def describe(self) -> AdapterDescription:
        return AdapterDescription("containers", "simulated", real=False, reason="containers are simulated")

    async def ping(self) -> None:
        await self._enter("ping", "")

    async def ensure_network(self, spec: NetworkSpec) -> SessionNetwork:
        await self._enter("ensure_network", spec.name)
        if self._networks.setdefault(spec.name, spec) != spec:
            raise ContainerError(
                f"cannot use network {spec.name}: it exists, and is not as it has to be; remove it, or configure it so"
            )
        return self._network(spec.name)

    async def network(self, name: str) -> SessionNetwork:
        await self._enter("network", name)
        return self._network(name)

    async def remove_network(self, name: str) -> None:
        await self._enter("remove_network", name)
        if name in self._networks and (attached := [found.spec.name for found in self._running(name)]):
            raise ContainerError(f"cannot remove network {name}: {', '.join(attached)} still attached; stop them first")
        self._networks.pop(name, None)

    async def resolve_image(self, image: str) -> str:
        await self._enter("resolve_image", image)
        return self._resolve(image)

    async def create(self, spec: ContainerSpec) -> str:
        await self._enter("create", spec.name)
        self._resolve(spec.image)
        existing = self._own(spec.name)
        if existing is None:
            existing = self._containers[spec.name] = _Container(spec, secrets.token_hex(32))
        if existing.spec.session_id != spec.session_id:
            raise ContainerError(
                f"cannot create container {spec.name}: one of this name exists for session {existing.spec.session_id}"
            )
        return existing.id

    async def start(self, name: str) -> ContainerInfo:
        await self._enter("start", name)
        found = self._existing(name)
        if found.state is not ContainerState.RUNNING:
            if found.spec.network not in self._networks:
                raise ContainerError(f"cannot start container {name}: its network does not exist; restart medforged")
            self._started += 1
            found.address = self._free_address(self._networks[found.spec.network])
            found.process_id = _FIRST_PROCESS_ID + self._started
            found.state, found.exit_code, found.oom_killed = ContainerState.RUNNING, None, False
        if name in self._die_on_start:
            self.die(name, exit_code=self._die_on_start.pop(name))
            raise ContainerError(f"cannot start container {name}: its program ended at once; see its log")
        return _info(found)

    async def stop(self, name: str, grace_seconds: float) -> None:  # noqa: ARG002 - nothing here needs time to end
        await self._enter("stop", name)
        found = self._own(name)
        if found is not None and found.state is ContainerState.RUNNING:
            self.die(name, exit_code=_KILLED)

    async def remove(self, name: str) -> None:
        await self._enter("remove", name)
        if self._own(name) is not None:
            del self._containers[name]

    async def inspect(self, name: str) -> ContainerInfo:
        await self._enter("inspect", name)
        found = self._own(name)
        return ContainerInfo(name, ContainerState.MISSING) if found is None else self._look(found)

    async def containers(self) -> tuple[ContainerInfo, ...]:
        await self._enter("containers", "")
        return tuple(self._look(self._containers[name]) for name in sorted(self._containers))

    async def logs(self, name: str, lines: int) -> str:
        await self._enter("logs", name)
        output = self._existing(name).output
        said = "".join(output[-lines:]) if lines > 0 else ""
        return said.encode()[-_MAX_LOG_BYTES:].decode(errors="ignore")

    async def close(self) -> None:
        self._outage = "the container adapter has been closed"

    # What a test or a demonstration does to it.

    def fail(
        self, operation: str, reason: str, *, times: int = 1, error: type[ContainerError] = ContainerError
    ) -> None:
        """Let the next calls of this method of the port fail."""
        if not hasattr(SimulatedRuntime, operation):
            raise ValueError(f"the port has no method {operation!r}")
        failure = error(f"cannot {operation.replace('_', ' ')}: {reason} (simulated)")
        self._failures.setdefault(operation, deque()).extend([failure] * times)

    def begin_outage(self, reason: str = "the container engine does not answer (simulated)") -> None:
        """Let every call raise ContainerUnavailable."""
        self._outage = reason

    def end_outage(self) -> None:
        self._outage = None

    def die(self, name: str, *, exit_code: int = 1, oom_killed: bool = False) -> None:
        """Let a running container end by itself. Raises ContainerMissing."""
        found = self._existing(name)
        found.state, found.exit_code, found.oom_killed = ContainerState.EXITED, exit_code, oom_killed
        found.address = found.process_id = found.dies_after = None

    def die_after_looks(self, name: str, looks: int) -> None:
        """Let a running container be found dead at the look after this many more. Raises ContainerMissing."""
        self._existing(name).dies_after = looks

    def die_on_start(self, name: str, *, exit_code: int = 1) -> None:
        """Let the container's program end at once when it is started next; it need not exist yet."""
        self._die_on_start[name] = exit_code

    def vanish(self, name: str) -> None:
        """Let a container be removed behind the daemon's back. Raises ContainerMissing."""
        self._existing(name)
        del self._containers[name]

    def occupy(self, name: str) -> None:
        """Let somebody else have a container of this name."""
        self._foreign.add(name)

    def say(self, name: str, text: str) -> None:
        """Let a container write to its output. Raises ContainerMissing."""
        self._existing(name).output.extend(text.splitlines(keepends=True))

    async def _enter(self, operation: str, subject: str) -> None:
        """Every call of the port begins here; `subject` is the name or reference that it is about."""
        # Also without a delay: a real adapter always lets others run here, and defects hide behind one that does not.
        await asyncio.sleep(self._latency_seconds)
        if self._outage is not None:
            raise ContainerUnavailable(f"cannot {operation.replace('_', ' ')} {subject}".rstrip() + f": {self._outage}")
        waiting = self._failures.get(operation)
        if waiting:
            raise waiting.popleft()

    def _look(self, found: _Container) -> ContainerInfo:
        if found.state is ContainerState.RUNNING and found.dies_after is not None:
            found.dies_after -= 1
            if found.dies_after < 0:
                self.die(found.spec.name)
        return _info(found)

    def _resolve(self, image: str) -> str:
        pinned = _PINNED.fullmatch(image)
        if pinned is None:
            raise ContainerError(f"cannot use image {image!r}: it is not pinned by digest; write name@sha256:…")
        if self._images is not None and image not in self._images:
            raise ContainerError(f"cannot use image {image}: it is not on this host; pull or build it")
        return pinned[1]

    def _own(self, name: str) -> _Container | None:
        if name in self._foreign:
            raise ContainerError(
                f"cannot touch container {name}: it was not made by this installation; remove or rename it"
            )
        return self._containers.get(name)

    def _existing(self, name: str) -> _Container:
        found = self._own(name)
        if found is None:
            raise ContainerMissing(f"cannot find container {name}: it does not exist")
        return found

    def _running(self, network: str) -> list[_Container]:
        return [
            found
            for found in self._containers.values()
            if found.spec.network == network and found.state is ContainerState.RUNNING
        ]

    def _free_address(self, network: NetworkSpec) -> IPv4Address:
        subnet = network.subnet
        taken = {found.address for found in self._running(network.name)}
        taken |= {subnet.network_address, subnet.broadcast_address, network.gateway}
        for address in network.dynamic_range:
            if address not in taken:
                return address
        raise ContainerError(
            f"cannot start a container: every address of network {network.name} is in use; stop sessions, or "
            "configure a larger range"
        )

    def _network(self, name: str) -> SessionNetwork:
        spec = self._networks.get(name)
        if spec is None:
            raise ContainerMissing(f"cannot read network {name}: it does not exist; restart medforged, which makes it")
        endpoints = tuple(
            Endpoint(found.spec.name, found.address, found.process_id)
            for found in self._running(name)
            if found.address is not None and found.process_id is not None
        )
        return SessionNetwork(name, spec.bridge, spec.subnet, spec.gateway, endpoints)


def _info(found: _Container) -> ContainerInfo:
    return ContainerInfo(
        name=found.spec.name,
        state=found.state,
        id=found.id,
        session_id=found.spec.session_id,
        address=found.address,
        process_id=found.process_id,
        exit_code=found.exit_code,
        oom_killed=found.oom_killed,
    )
