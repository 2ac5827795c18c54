"""Owns what the daemon needs from a container engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from medforged.domain.adapters import AdapterDescription
from medforged.domain.containers import (
    ContainerEvent,
    ContainerInfo,
    ContainerSpec,
    ContainerSummary,
    NetworkSpec,
    SessionNetwork,
)

__all__ = ["ContainerRuntime"]


class ContainerRuntime(Protocol):
    """Containers of sessions and the network they share.

    Containers are found by their name; only containers that carry this installation's label are ever listed,
    stopped or removed. Raises ContainerError, ContainerMissing, ContainerUnavailable.
    """

    def describe(self) -> AdapterDescription: ...

    async def ping(self) -> None:
        """Raises ContainerUnavailable when the engine does not answer."""
        ...

    async def ensure_network(self, spec: NetworkSpec) -> SessionNetwork:
        """Create the network if it is absent. One that exists with another subnet is an error, never changed."""
        ...

    async def network(self, name: str) -> SessionNetwork:
        """The network as it is now, with its running endpoints. Raises ContainerMissing."""
        ...

    async def remove_network(self, name: str) -> None:
        """Remove the network. Absent: no error. Raises ContainerError while anything is attached to it."""
        ...

    async def resolve_image(self, image: str) -> str:
        """The engine's id of a digest-pinned image. Raises ContainerError with a remedy when it is not there."""
        ...

    async def create(self, spec: ContainerSpec) -> str:
        """Create (not start) the container and return its id. One of this name that exists and carries this
        session's label is returned; one that does not is an error."""
        ...

    async def start(self, name: str) -> ContainerInfo:
        """Start it (a running one stays as it is) and return it with its address and process id."""
        ...

    async def stop(self, name: str, grace_seconds: float) -> None:
        """Ask it to end, then kill it after the grace. Not running or absent: no error."""
        ...

    async def remove(self, name: str) -> None:
        """Remove it, running or not. Absent: no error."""
        ...

    async def inspect(self, name: str) -> ContainerInfo:
        """Its current state; MISSING when it does not exist, UNKNOWN when the engine's answer makes no sense."""
        ...

    async def containers(self) -> tuple[ContainerSummary, ...]:
        """Every container of this installation, in any state, by name; one question however many there are."""
        ...

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[ContainerEvent]]:
        """What happens to this installation's containers and to the engine's networks.

        Once entered, nothing is missed that happens from then on; something from shortly before may be told too, and
        something can be told twice. Both entering and iterating raise ContainerUnavailable when the engine does not
        answer or the stream is lost; what happened meanwhile is then for a listing to find out.
        """
        ...

    async def logs(self, name: str, lines: int) -> str:
        """The last lines of its output, at most 1 MiB, decoded with replacement. Raises ContainerMissing."""
        ...

    async def close(self) -> None: ...
