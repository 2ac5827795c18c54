"""Owns the StateStore over SQLite: allocation and transitions, each one transaction."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, insert, literal, select, tuple_, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medforged.adapters.sqlite import devices
from medforged.adapters.sqlite.engine import READS
from medforged.adapters.sqlite.schema import ACTIVE_STATUSES, counter, gpus, sessions
from medforged.domain.errors import NoGpuAvailable, SessionLimitReached, SessionNotFound, StateConflict, StateError
from medforged.domain.gpus import Gpu, GpuInventory
from medforged.domain.sessions import TRANSITIONS, Session, SessionStatus, SessionStep, StopReason, Tier, new_slug
from medforged.ports.state import Allocation, SessionChange, SessionQuery

__all__ = ["SqliteState"]

# Slugs are 40 random bits: a second collision in a row is already unheard of.
_SLUG_ATTEMPTS = 5
# SQLite's oldest limit of parameters in a statement is 999.
_IDS_AT_ONCE = 500

_SESSIONS = select(sessions, gpus.c.uuid.label("gpu_uuid")).join(gpus, gpus.c.id == sessions.c.gpu_id)


class SqliteState:
    """`lock` is the descriptor that keeps a second daemon out; it is closed with the engine."""

    def __init__(self, engine: AsyncEngine, lock: int) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**READS)
        self._lock = lock
        # Writers of this process queue here instead of in SQLite's busy handler, which sleeps and is not fair.
        self._writer = asyncio.Lock()

    async def close(self) -> None:
        await self._engine.dispose()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def allocate(self, allocation: Allocation) -> Session:
        async with self._writing() as connection:
            active = sessions.c.status.in_(ACTIVE_STATUSES)
            held = await connection.scalar(
                select(func.count()).select_from(sessions).where(active, sessions.c.user_id == allocation.user_id)
            )
            if (held or 0) >= allocation.max_concurrent_sessions:
                raise SessionLimitReached("Concurrent session limit reached")
            taken = select(sessions.c.gpu_id).where(active)
            gpu_id = await connection.scalar(
                select(gpus.c.id)
                .where(gpus.c.enabled, gpus.c.healthy, gpus.c.quarantine.is_(None), gpus.c.id.not_in(taken))
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
                    step=SessionStep.WORKSPACE.value,
                    gpu_id=gpu_id,
                    slug=await _unused_slug(connection),
                    workspace_zfs=allocation.workspace_zfs,
                    created_at=allocation.created_at,
                    revision=await _next_revision(connection),
                )
            )
            return await _one(connection, allocation.session_id)

    async def change(self, session_id: UUID, expected: Collection[SessionStatus], change: SessionChange) -> Session:
        async with self._writing() as connection:
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
            words = {name: getattr(change, name) for name in ("status", "step", "ending")}
            values |= {name: word.value for name, word in words.items() if word is not None}
            values["revision"] = await _next_revision(connection)
            await connection.execute(update(sessions).where(sessions.c.id == session_id).values(values))
            if change.gpu_quarantine is not None:
                await devices.quarantine(connection, current.gpu_id, change.gpu_quarantine, session_id)
            return await _one(connection, session_id)

    async def session(self, session_id: UUID) -> Session:
        async with self._reading() as connection:
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

    async def recorded(self, session_ids: Collection[UUID]) -> frozenset[UUID]:
        wanted = sorted(session_ids, key=str)
        found: set[UUID] = set()
        async with self._reading() as connection:
            for start in range(0, len(wanted), _IDS_AT_ONCE):
                some = wanted[start : start + _IDS_AT_ONCE]
                found.update((await connection.execute(select(sessions.c.id).where(sessions.c.id.in_(some)))).scalars())
        return frozenset(found)

    async def changed_since(self, revision: int) -> tuple[Session, ...]:
        return await self._select(_SESSIONS.where(sessions.c.revision > revision).order_by(sessions.c.revision))

    async def revision(self) -> int:
        async with self._reading() as connection:
            return int((await connection.execute(select(counter.c.revision))).scalar_one())

    async def epoch(self) -> UUID:
        async with self._reading() as connection:
            epoch: UUID = (await connection.execute(select(counter.c.epoch))).scalar_one()
            return epoch

    async def record_gpus(self, inventory: GpuInventory) -> tuple[Gpu, ...]:
        async with self._writing() as connection:
            await devices.record(connection, inventory)
            return await devices.every_gpu(connection)

    async def gpus(self) -> tuple[Gpu, ...]:
        async with self._reading() as connection:
            return await devices.every_gpu(connection)

    async def gpu(self, gpu_id: int) -> Gpu:
        async with self._reading() as connection:
            return await devices.one_gpu(connection, gpu_id)

    async def enable_gpu(self, gpu_id: int, *, enabled: bool) -> Gpu:
        async with self._writing() as connection:
            return await devices.set_values(connection, gpu_id, enabled=enabled)

    async def explain_gpu(self, gpu_id: int, reason: str) -> Gpu:
        async with self._writing() as connection:
            return await devices.set_values(connection, gpu_id, quarantine=reason)

    async def release_gpu(self, gpu_id: int) -> Gpu:
        async with self._writing() as connection:
            return await devices.set_values(connection, gpu_id, quarantine=None, quarantine_session_id=None)

    async def gpu_holders(self) -> Mapping[int, UUID]:
        async with self._reading() as connection:
            rows = await connection.execute(
                select(sessions.c.gpu_id, sessions.c.id).where(sessions.c.status.in_(ACTIVE_STATUSES))
            )
            return {row.gpu_id: row.id for row in rows}

    async def _select(self, statement: Select[Any]) -> tuple[Session, ...]:
        async with self._reading() as connection:
            return tuple(_session(row) for row in await connection.execute(statement))

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        async with self._writer:
            with _told("write"):
                async with self._engine.begin() as connection:
                    yield connection

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        """What has been committed, whoever is writing meanwhile."""
        with _told("read"):
            async with self._reader.begin() as connection:
                yield connection


@contextmanager
def _told(verb: str) -> Iterator[None]:
    """Say what the database's failure means. What the schema forbids is a defect and passes as it is."""
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise StateError(
            f"cannot {verb} the daemon's database: {error.orig}; check space, permissions and who else uses it"
        ) from error


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


def _session(row: Row[Any]) -> Session:
    return Session(
        id=row.id,
        user_id=row.user_id,
        tier=Tier(row.tier),
        pack_id=row.pack_id,
        status=SessionStatus(row.status),
        step=SessionStep(row.step),
        ending=None if row.ending is None else StopReason(row.ending),
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
