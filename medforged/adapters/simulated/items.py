"""Owns what is kept of a simulated host: an immutable item for each thing on it, which is also what its file says.

Addresses and networks are texts here, so that a file says what a person would write. What a file does not say has the
default below, and what nobody knows is ignored.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from medforged.domain.containers import ContainerState
from medforged.domain.isolation import StrayKind

__all__ = [
    "ContainerItem",
    "GpuItem",
    "IsolationItem",
    "NetworkItem",
    "PartItem",
    "SnapshotItem",
    "StrayItem",
    "WorkspaceItem",
]


class ContainerItem(msgspec.Struct, frozen=True, kw_only=True):
    """A container. `foreign` ones belong to somebody else; `output` is what it wrote, in lines.

    Only a running one has an address and a process. `dies_after_looks` counts down with every look at a running one.
    """

    name: str
    id: str
    state: ContainerState = ContainerState.CREATED
    session_id: UUID | None = None
    slug: str = ""
    image: str = ""
    network: str = ""
    gpu_uuid: str = ""
    address: str | None = None
    process_id: int | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    foreign: bool = False
    dies_after_looks: int | None = None
    output: tuple[str, ...] = ()


class NetworkItem(msgspec.Struct, frozen=True, kw_only=True):
    """A network; the fields are those of the domain's `NetworkSpec`."""

    name: str
    subnet: str
    gateway: str
    dynamic_range: str
    bridge: str


class SnapshotItem(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot, the time at which it was taken, aware, how many files it has, and the tags that hold it."""

    name: str
    created_at: datetime
    files: int = 0
    holds: tuple[str, ...] = ()


class WorkspaceItem(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace: how many files are in it, and its snapshots from the oldest. A quota of None is none."""

    user_id: UUID
    session_id: UUID
    quota_bytes: int | None = None
    files: int = 0
    snapshots: tuple[SnapshotItem, ...] = ()


class StrayItem(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of isolation on a network, and why nothing explains it."""

    kind: StrayKind
    name: str
    reason: str


class IsolationItem(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps a network's sessions apart: the containers whose ports are isolated. None: there are no rules."""

    network: str
    covered: tuple[str, ...] | None = None
    strays: tuple[StrayItem, ...] = ()


class GpuItem(msgspec.Struct, frozen=True, kw_only=True):
    """What is the matter with a GPU. A fault that is not `lasting` is an event of the past, which can be forgotten.

    `process_ids` are in addition to those of the simulated containers that run on it.
    """

    fault: str | None = None
    lasting: bool = True
    process_ids: tuple[int, ...] = ()


class PartItem(msgspec.Struct, frozen=True, kw_only=True):
    """What is the matter with a part as a whole: why it does not work, what probes find, how often it restarted."""

    failure: str | None = None
    leaks: tuple[str, ...] = ()
    restarts: int = 0
