"""Owns the StateStore over SQLite: allocation and transitions, each one transaction."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, insert, literal, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medforged.adapters.sqlite.schema import ACTIVE_STATUSES, counter, gpus, sessions
from medforged.domain.errors import NoGpuAvailable, SessionLimitReached, SessionNotFound, StateConflict
from medforged.domain.gpus import Gpu, GpuDevice, GpuHealth, GpuInventory
from medforged.domain.sessions import TRANSITIONS, Session, SessionStatus, Tier, new_slug
from medforged.ports.state import Allocation, SessionChange, SessionQuery

__all__ = ["SqliteState"]

# Slugs are 40 random bits: a second collision in a row is already unheard of.
_SLUG_ATTEMPTS = 5
_ABSENT = "the driver does not report this GPU any more; check the host, then `medforgectl gpus`"

_SESSIONS = select(sessions, gpus.c.uuid.label("gpu_uuid")).join(gpus, gpus.c.id == sessions.c.gpu_id)


class SqliteState:
    """`lock` is the descriptor that keeps a second daemon out; it is closed with the engine."""

    def __init__(self, engine: AsyncEngine, lock: int) -> None:
        self._engine = engine
        self._lock = lock
        # Writers of this process queue here instead of in SQLite's busy handler, which sleeps and is not fair.
        self._writer = asyncio.Lock()

    async def close(self) -> None:
        await self._engine.dispose()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def allocate(self, allocation: Allocation) -> Session:
        async with self._transaction() as connection:
            active = sessions.c.status.in_(ACTIVE_STATUSES)
            held = await connection.scalar(
                select(func.count()).select_from(sessions).where(active, sessions.c.user_id == allocation.user_id)
            )
            if (held or 0) >= allocation.max_concurrent_sessions:
                raise SessionLimitReached("Concurrent session limit reached")
            taken = select(sessions.c.gpu_id).where(active)
            gpu_id = await connection.scalar(
                select(gpus.c.id)
                .where(gpus.c.enabled, gpus.c.healthy, gpus.c.id.not_in(taken))
                .order_by(gpus.c.id)
                .limit(1)
            )
            if gpu_id is None:
                raise NoGpuAvailable("No GPUs available")
            await connection.execute(
                insert(sessions).values(
                    id=allocation.session_id,
                    user_id=allocation.user_id,
                    tier=allocation.tier.value,
                    pack_id=allocation.pack_id,
                    status=SessionStatus.STARTING.value,
                    gpu_id=gpu_id,
                    slug=await _unused_slug(connection),
                    workspace_zfs=allocation.workspace_zfs,
                    created_at=allocation.created_at,
                    revision=await _next_revision(connection),
                )
            )
            return await _one(connection, allocation.session_id)

    async def change(self, session_id: UUID, expected: Collection[SessionStatus], change: SessionChange) -> Session:
        async with self._transaction() as connection:
            current = await _one(connection, session_id)
            if current.status not in expected:
                wanted = ", ".join(sorted(status.value for status in expected))
                raise StateConflict(f"cannot change session {session_id}: it is {current.status.value}, not {wanted}")
            if change.status not in (None, current.status) and change.status not in TRANSITIONS[current.status]:
                raise StateConflict(
                    f"cannot change session {session_id}: {current.status.value} never becomes {change.status}"
                )
            values: dict[str, Any] = {
                name: value
                for name in ("container_id", "started_at", "stopped_at", "snapshot_at", "error_message")
                if (value := getattr(change, name)) is not None
            }
            if change.status is not None:
                values["status"] = change.status.value
            values["revision"] = await _next_revision(connection)
            await connection.execute(update(sessions).where(sessions.c.id == session_id).values(values))
            return await _one(connection, session_id)

    async def session(self, session_id: UUID) -> Session:
        async with self._transaction() as connection:
            return await _one(connection, session_id)

    async def sessions(self, query: SessionQuery) -> tuple[Session, ...]:
        statement = _SESSIONS.order_by(sessions.c.created_at.desc(), sessions.c.id.desc()).limit(query.limit)
        if query.user_id is not None:
            statement = statement.where(sessions.c.user_id == query.user_id)
        if query.statuses:
            statement = statement.where(sessions.c.status.in_(sorted(status.value for status in query.statuses)))
        if query.before is not None:
            created_at, session_id = query.before
            statement = statement.where(
                tuple_(sessions.c.created_at, sessions.c.id)
                < tuple_(literal(created_at, sessions.c.created_at.type), literal(session_id, sessions.c.id.type))
            )
        return await self._select(statement)

    async def active(self) -> tuple[Session, ...]:
        return await self._select(
            _SESSIONS.where(sessions.c.status.in_(ACTIVE_STATUSES)).order_by(sessions.c.created_at, sessions.c.id)
        )

    async def changed_since(self, revision: int) -> tuple[Session, ...]:
        return await self._select(_SESSIONS.where(sessions.c.revision > revision).order_by(sessions.c.revision))

    async def revision(self) -> int:
        async with self._transaction() as connection:
            return int((await connection.execute(select(counter.c.revision))).scalar_one())

    async def epoch(self) -> UUID:
        async with self._transaction() as connection:
            epoch: UUID = (await connection.execute(select(counter.c.epoch))).scalar_one()
            return epoch

    async def record_gpus(self, inventory: GpuInventory) -> tuple[Gpu, ...]:
        async with self._transaction() as connection:
            known = {row.uuid: row for row in await connection.execute(select(gpus))}
            present = {device.uuid: device for device in inventory.devices}
            for uuid, device in present.items():
                values = _gpu_values(device)
                if uuid not in known:
                    await connection.execute(
                        insert(gpus).values(id=await _unused_gpu_id(connection, device), enabled=True, **values)
                    )
                elif any(getattr(known[uuid], name) != value for name, value in values.items()):
                    await connection.execute(update(gpus).where(gpus.c.uuid == uuid).values(values))
            absent = [
                uuid for uuid, row in known.items() if uuid not in present and (row.healthy or row.reason != _ABSENT)
            ]
            if absent:
                await connection.execute(
                    update(gpus).where(gpus.c.uuid.in_(absent)).values(healthy=False, reason=_ABSENT)
                )
            return _gpus(await connection.execute(select(gpus).order_by(gpus.c.id)))

    async def gpus(self) -> tuple[Gpu, ...]:
        async with self._transaction() as connection:
            return _gpus(await connection.execute(select(gpus).order_by(gpus.c.id)))

    async def gpu_holders(self) -> Mapping[int, UUID]:
        async with self._transaction() as connection:
            rows = await connection.execute(
                select(sessions.c.gpu_id, sessions.c.id).where(sessions.c.status.in_(ACTIVE_STATUSES))
            )
            return {row.gpu_id: row.id for row in rows}

    async def _select(self, statement: Select[Any]) -> tuple[Session, ...]:
        async with self._transaction() as connection:
            return tuple(_session(row) for row in await connection.execute(statement))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._writer, self._engine.begin() as connection:
            yield connection


async def _one(connection: AsyncConnection, session_id: UUID) -> Session:
    row = (await connection.execute(_SESSIONS.where(sessions.c.id == session_id))).one_or_none()
    if row is None:
        raise SessionNotFound(f"no session has the id {session_id}")
    return _session(row)


async def _next_revision(connection: AsyncConnection) -> int:
    result = await connection.execute(
        update(counter).values(revision=counter.c.revision + 1).returning(counter.c.revision)
    )
    return int(result.scalar_one())


async def _unused_slug(connection: AsyncConnection) -> str:
    for _ in range(_SLUG_ATTEMPTS):
        slug = new_slug()
        if await connection.scalar(select(sessions.c.id).where(sessions.c.slug == slug)) is None:
            return slug
    raise IntegrityError("no unused slug found", None, RuntimeError("the random source repeats itself"))


async def _unused_gpu_id(connection: AsyncConnection, device: GpuDevice) -> int:
    """The driver's index where no other device has that id yet, so that ids look like what people expect."""
    taken = set((await connection.execute(select(gpus.c.id))).scalars())
    return device.index if device.index not in taken else max(taken) + 1


def _gpu_values(device: GpuDevice) -> dict[str, Any]:
    return {
        "uuid": device.uuid,
        "device_index": device.index,
        "name": device.name,
        "pci_address": device.pci_address,
        "memory_total_bytes": device.memory_total_bytes,
        "healthy": device.fault is None,
        "reason": device.fault,
    }


def _gpus(rows: Any) -> tuple[Gpu, ...]:
    return tuple(
        Gpu(
            id=row.id,
            uuid=row.uuid,
            index=row.device_index,
            name=row.name,
            pci_address=row.pci_address,
            memory_total_bytes=row.memory_total_bytes,
            enabled=row.enabled,
            health=GpuHealth.HEALTHY if row.healthy else GpuHealth.UNHEALTHY,
            reason=row.reason,
        )
        for row in rows
    )


def _session(row: Row[Any]) -> Session:
    return Session(
        id=row.id,
        user_id=row.user_id,
        tier=Tier(row.tier),
        pack_id=row.pack_id,
        status=SessionStatus(row.status),
        gpu_id=row.gpu_id,
        gpu_uuid=row.gpu_uuid,
        slug=row.slug,
        workspace_zfs=row.workspace_zfs,
        created_at=row.created_at,
        revision=row.revision,
        container_id=row.container_id,
        started_at=row.started_at,
        stopped_at=row.stopped_at,
        snapshot_at=row.snapshot_at,
        error_message=row.error_message,
    )
