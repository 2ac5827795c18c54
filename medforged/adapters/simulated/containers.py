"""Owns simulated containers and their network: trials, demonstrations, scale and fault tests.

Nothing runs. A container that has been started is running until it is stopped, killed by `die` or found dead after
the number of looks that `die_after_looks` gives it. There is no time in here apart from one configurable delay. What
exists is on the `SimulatedHost`, and outlives the adapter where that does; what goes wrong with calls is the adapter's.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

from medforged.adapters.simulated.engine import KILLED, SimulatedEngine
from medforged.adapters.simulated.events import EventStream, events_between
from medforged.adapters.simulated.hangs import Hang, Hangs
from medforged.adapters.simulated.host import SimulatedHost, Watch
from medforged.adapters.simulated.items import ContainerItem, NetworkItem, PartItem
from medforged.domain.adapters import AdapterDescription
from medforged.domain.containers import (
    ContainerEvent,
    ContainerEventKind,
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    ContainerSummary,
    NetworkSpec,
    SessionNetwork,
)
from medforged.domain.errors import ContainerError, ContainerUnavailable

__all__ = ["SimulatedRuntime"]

_PINNED = re.compile(r"(?:.+@)?(sha256:[0-9a-f]{64})")
_MAX_LOG_BYTES = 1 << 20


class SimulatedRuntime(SimulatedEngine):
    """ContainerRuntime over containers that exist nowhere but on a `host`, by default one of its own.

    `images` are the pinned references that resolve; None lets every one. Each call takes `latency_seconds`.
    """

    def __init__(
        self,
        *,
        latency_seconds: float = 0.0,
        images: Iterable[str] | None = None,
        host: SimulatedHost | None = None,
    ) -> None:
        super().__init__(host or SimulatedHost())
        self._latency_seconds = latency_seconds
        self._images = None if images is None else set(images)
        self._failures: dict[str, deque[ContainerError]] = {}
        self._hangs = Hangs()
        self._die_on_start: dict[str, int] = {}
        self._streams: set[EventStream] = set()
        self._closed = False
        self._stops = (
            self._host.containers.observe(self._container_changed),
            self._host.networks.observe(self._network_changed),
            self._host.engine.observe(self._engine_changed),
        )

    # The port.

    def describe(self) -> AdapterDescription:
        return AdapterDescription("containers", "simulated", real=False, reason="containers are simulated")

    async def ping(self) -> None:
        await self._enter("ping", "")

    async def ensure_network(self, spec: NetworkSpec) -> SessionNetwork:
        await self._enter("ensure_network", spec.name)
        wanted = NetworkItem(
            name=spec.name,
            subnet=str(spec.subnet),
            gateway=str(spec.gateway),
            dynamic_range=str(spec.dynamic_range),
            bridge=spec.bridge,
        )
        with self._host.networks.exclusive():
            found = self._host.networks.get(spec.name)
            if found is None:
                self._host.networks.put(spec.name, wanted)
        if found not in (None, wanted):
            raise ContainerError(
                f"cannot use network {spec.name}: it exists, and is not as it has to be; remove it, or configure it so"
            )
        return self._network(spec.name)

    async def network(self, name: str) -> SessionNetwork:
        await self._enter("network", name)
        return self._network(name)

    async def remove_network(self, name: str) -> None:
        await self._enter("remove_network", name)
        with self._host.networks.exclusive():
            exists = self._host.networks.get(name) is not None
            if exists and (attached := [found.name for found in self._running(name)]):
                raise ContainerError(
                    f"cannot remove network {name}: {', '.join(attached)} still attached; stop them first"
                )
            self._host.networks.remove(name)

    async def resolve_image(self, image: str) -> str:
        await self._enter("resolve_image", image)
        return self._resolve(image)

    async def create(self, spec: ContainerSpec) -> str:
        await self._enter("create", spec.name)
        self._resolve(spec.image)
        with self._host.containers.exclusive():
            existing = self._own(spec.name)
            if existing is None:
                existing = ContainerItem(
                    name=spec.name,
                    id=secrets.token_hex(32),
                    session_id=spec.session_id,
                    slug=spec.slug,
                    image=spec.image,
                    network=spec.network,
                    gpu_uuid=spec.gpu_uuid,
                )
                self._host.containers.put(spec.name, existing)
        if existing.session_id != spec.session_id:
            raise ContainerError(
                f"cannot create container {spec.name}: one of this name exists for session {existing.session_id}"
            )
        return existing.id

    async def start(self, name: str) -> ContainerInfo:
        await self._enter("start", name)
        with self._host.containers.exclusive():
            found = self._existing(name)
            if found.state is not ContainerState.RUNNING:
                found = self._run(found)
        if name in self._die_on_start:
            self.die(name, exit_code=self._die_on_start.pop(name))
            raise ContainerError(f"cannot start container {name}: its program ended at once; see its log")
        return _info(found)

    async def stop(self, name: str, grace_seconds: float) -> None:  # noqa: ARG002 - nothing here needs time to end
        await self._enter("stop", name)
        with self._host.containers.exclusive():
            found = self._own(name)
            if found is not None and found.state is ContainerState.RUNNING:
                self._tell(ContainerEvent(ContainerEventKind.KILL, name, found.session_id))
                self.die(name, exit_code=KILLED)

    async def remove(self, name: str) -> None:
        await self._enter("remove", name)
        with self._host.containers.exclusive():
            found = self._own(name)
            if found is not None and found.state is ContainerState.RUNNING:
                self._tell(ContainerEvent(ContainerEventKind.KILL, name, found.session_id))
            self._host.containers.remove(name)

    async def inspect(self, name: str) -> ContainerInfo:
        await self._enter("inspect", name)
        found = self._own(name)
        return ContainerInfo(name, ContainerState.MISSING) if found is None else _info(self._look(found))

    async def containers(self) -> tuple[ContainerSummary, ...]:
        await self._enter("containers", "")
        found = [self._look(item) for item in self._host.containers.items().values() if not item.foreign]
        return tuple(ContainerSummary(item.name, item.id, item.state, item.session_id) for item in found)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[ContainerEvent]]:
        await self._enter("subscribe", "")
        # The engine first: what dies with it is not told any more, as nothing is by an engine that is down.
        shelves = (self._host.engine, self._host.containers, self._host.networks)
        for shelf in shelves:
            shelf.poll()  # what others did before is no news
        stream = EventStream(Watch(*shelves))
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            stream.close()

    async def logs(self, name: str, lines: int) -> str:
        await self._enter("logs", name)
        output = self._existing(name).output
        said = "".join(output[-lines:]) if lines > 0 else ""
        return said.encode()[-_MAX_LOG_BYTES:].decode(errors="ignore")

    async def close(self) -> None:
        if not self._closed:
            for stop in self._stops:
                stop()
        self._closed = True
        self._end_streams("the container adapter has been closed")

    # What a test or a demonstration does to it.

    def fail(
        self, operation: str, reason: str, *, times: int = 1, error: type[ContainerError] = ContainerError
    ) -> None:
        """Let the next calls of this method of the port fail."""
        _check(operation)
        failure = error(f"cannot {operation.replace('_', ' ')}: {reason} (simulated)")
        self._failures.setdefault(operation, deque()).extend([failure] * times)

    def hang(self, operation: str, name: str | None = None) -> Hang:
        """Let calls of this method of the port, of all or of one name, not return until what is returned says so."""
        _check(operation)
        return self._hangs.add(operation, name)

    def die_on_start(self, name: str, *, exit_code: int = 1) -> None:
        """Let the container's program end at once when it is started next; it need not exist yet."""
        self._die_on_start[name] = exit_code

    async def _enter(self, operation: str, subject: str) -> None:
        """Every call of the port begins here; `subject` is the name or reference that it is about."""
        # Also without a delay: a real adapter always lets others run here, and defects hide behind one that does not.
        await asyncio.sleep(self._latency_seconds)
        await self._hangs.wait(operation, subject)
        outage = "the container adapter has been closed" if self._closed else self._engine().failure
        if outage is not None:
            raise ContainerUnavailable(f"cannot {operation.replace('_', ' ')} {subject}".rstrip() + f": {outage}")
        waiting = self._failures.get(operation)
        if waiting:
            raise waiting.popleft()

    def _resolve(self, image: str) -> str:
        pinned = _PINNED.fullmatch(image)
        if pinned is None:
            raise ContainerError(f"cannot use image {image!r}: it is not pinned by digest; write name@sha256:…")
        if self._images is not None and image not in self._images:
            raise ContainerError(f"cannot use image {image}: it is not on this host; pull or build it")
        return pinned[1]

    # What is told to subscribers.

    def _container_changed(self, _: str, before: ContainerItem | None, after: ContainerItem | None) -> None:
        for event in events_between(before, after):
            self._tell(event)

    def _network_changed(self, name: str, *_: NetworkItem | None) -> None:
        self._tell(ContainerEvent(ContainerEventKind.NETWORK, name))

    def _engine_changed(self, _: str, before: PartItem | None, after: PartItem | None) -> None:
        former, now = before or PartItem(), after or PartItem()
        if now.failure is not None:
            self._end_streams(now.failure)
        elif now.restarts != former.restarts:
            self._end_streams("the container engine was restarted (simulated)")

    def _tell(self, event: ContainerEvent) -> None:
        for stream in self._streams:
            stream.tell(event)

    def _end_streams(self, reason: str) -> None:
        for stream in self._streams:
            stream.end(reason)


def _check(operation: str) -> None:
    if not hasattr(SimulatedRuntime, operation):
        raise ValueError(f"the port has no method {operation!r}")


def _info(found: ContainerItem) -> ContainerInfo:
    return ContainerInfo(
        name=found.name,
        state=found.state,
        id=found.id,
        session_id=found.session_id,
        address=None if found.address is None else IPv4Address(found.address),
        process_id=found.process_id,
        exit_code=found.exit_code,
        oom_killed=found.oom_killed,
    )
