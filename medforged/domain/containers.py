"""Owns what the daemon asks of a container and what it reads back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import UUID

__all__ = [
    "IDE_PORT",
    "ContainerEvent",
    "ContainerEventKind",
    "ContainerInfo",
    "ContainerLimits",
    "ContainerSpec",
    "ContainerState",
    "ContainerSummary",
    "Endpoint",
    "NetworkSpec",
    "SessionNetwork",
    "container_name",
]

# contract.md section 3, step 4: the IDE listens here in every pack.
IDE_PORT = 8080


class ContainerState(StrEnum):
    """The states that reconciliation tells apart."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ContainerLimits:
    """Resource limits of one session: bytes, CPU cores (fractions allowed) and a number of processes."""

    memory_bytes: int
    shm_bytes: int
    cpus: float
    pids: int


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything a session's container is made from; derived from its record and the settings alone.

    What is the same for every session (user 1000:1000, all capabilities dropped, no-new-privileges,
    init, one bind mount) is the adapter's business and cannot be asked for otherwise.
    """

    name: str
    session_id: UUID
    slug: str
    image: str
    network: str
    workspace: Path
    gpu_uuid: str
    gpu_simulated: bool
    environment: tuple[tuple[str, str], ...]
    limits: ContainerLimits


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container as the engine reports it; `state` MISSING stands for one that does not exist.

    `session_id` comes from the container's label and is None where the label is absent or malformed.
    """

    name: str
    state: ContainerState
    id: str | None = None
    session_id: UUID | None = None
    address: IPv4Address | None = None
    process_id: int | None = None
    exit_code: int | None = None
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSummary:
    """A container of this installation as a listing tells it: what can be told of any number of them in one answer.

    `session_id` comes from the container's label and is None where the label is absent or malformed.
    """

    name: str
    id: str
    state: ContainerState
    session_id: UUID | None


class ContainerEventKind(StrEnum):
    """What can happen behind the daemon's back; the words are the engine's."""

    START = "start"
    DIE = "die"
    OOM = "oom"
    KILL = "kill"
    DESTROY = "destroy"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something happened to a container, or to the network named. A reason to look, never a fact to act upon."""

    kind: ContainerEventKind
    name: str
    session_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """The sessions' network as it has to be. `dynamic_range` is where sessions get their addresses from,
    so that the fixed addresses (Caddy's, the reserved one, the probes') are never given to a session."""

    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    dynamic_range: IPv4Network
    bridge: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running container attached to the sessions' network; `process_id` is its first process on the host."""

    container_name: str
    address: IPv4Address
    process_id: int


@dataclass(frozen=True, slots=True)
class SessionNetwork:
    """The sessions' network as it is: the host's bridge interface and who is attached."""

    name: str
    bridge: str
    subnet: IPv4Network
    gateway: IPv4Address
    endpoints: tuple[Endpoint, ...]


def container_name(slug: str) -> str:
    """The container of a session is always called after its slug (contract.md section 3, step 4).

    >>> container_name("abcd2345")
    'mf-session-abcd2345'
    """
    return f"mf-session-{slug}"
