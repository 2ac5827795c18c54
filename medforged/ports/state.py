"""Owns what the daemon needs from its database, the only truth about sessions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from medforged.domain.gpus import Gpu, GpuInventory
from medforged.domain.sessions import Session, SessionStatus, SessionStep, StopReason, Tier

__all__ = ["Allocation", "SessionChange", "SessionQuery", "StateStore"]


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a new session's record is made from. `workspace_zfs` is the name that its workspace will have."""

    session_id: UUID
    user_id: UUID
    tier: Tier
    pack_id: UUID
    max_concurrent_sessions: int
    workspace_zfs: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SessionChange:
    """New values of a record; None leaves a value as it is. Nothing here can be cleared again.

    `gpu_quarantine` is the reason for which the session's GPU is quarantined in the same transaction.
    """

    status: SessionStatus | None = None
    step: SessionStep | None = None
    ending: StopReason | None = None
    container_id: str | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    snapshot_at: datetime | None = None
    error_message: str | None = None
    gpu_quarantine: str | None = None


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """A page of sessions, newest first. `before` is the (created_at, id) of the last one already seen."""

    user_id: UUID | None = None
    statuses: frozenset[SessionStatus] = field(default_factory=frozenset)
    before: tuple[datetime, UUID] | None = None
    limit: int = 100


class StateStore(Protocol):
    """Sessions and GPUs. Every method is one transaction, and raises StateError when the database fails."""

    async def allocate(self, allocation: Allocation) -> Session:
        """Insert a `starting` record on a free and usable GPU with a fresh slug; its first step is `workspace`.

        Raises SessionLimitReached or NoGpuAvailable; then nothing was written.
        """
        ...

    async def change(self, session_id: UUID, expected: Collection[SessionStatus], change: SessionChange) -> Session:
        """Change a record whose status is one of `expected` and return it with its new revision.

        Raises SessionNotFound, or StateConflict when the status is another or the transition is not allowed.
        """
        ...

    async def session(self, session_id: UUID) -> Session:
        """Raises SessionNotFound."""
        ...

    async def sessions(self, query: SessionQuery) -> tuple[Session, ...]: ...

    async def active(self) -> tuple[Session, ...]:
        """Every active session, oldest first."""
        ...

    async def recorded(self, session_ids: Collection[UUID]) -> frozenset[UUID]:
        """Those of the ids that a session has or had."""
        ...

    async def changed_since(self, revision: int) -> tuple[Session, ...]:
        """Every session whose last change has a greater revision, in order of revision."""
        ...

    async def revision(self) -> int:
        """The greatest revision given out so far; 0 for an empty database."""
        ...

    async def epoch(self) -> UUID:
        """Identifies this database: revisions of different epochs cannot be compared."""
        ...

    async def record_gpus(self, inventory: GpuInventory) -> tuple[Gpu, ...]:
        """Bring the GPU table in line with an inventory and return all known GPUs, ordered by id.

        A device seen for the first time gets an id; one that is not in the inventory becomes unhealthy.
        """
        ...

    async def gpus(self) -> tuple[Gpu, ...]: ...

    async def gpu(self, gpu_id: int) -> Gpu:
        """Raises GpuNotFound."""
        ...

    async def enable_gpu(self, gpu_id: int, *, enabled: bool) -> Gpu:
        """Let a GPU be allocated from now on, or no more; the session that holds it keeps it. Raises GpuNotFound."""
        ...

    async def explain_gpu(self, gpu_id: int, reason: str) -> Gpu:
        """Say anew why a GPU is in quarantine. Raises GpuNotFound."""
        ...

    async def release_gpu(self, gpu_id: int) -> Gpu:
        """End its quarantine. Raises GpuNotFound."""
        ...

    async def gpu_holders(self) -> Mapping[int, UUID]:
        """Which active session holds which GPU, by GPU id."""
        ...

    async def close(self) -> None: ...
