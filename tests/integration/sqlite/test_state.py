"""The daemon's database: allocation, transitions, paging, revisions, and what keeps two daemons apart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from medforged.adapters.sqlite import SqliteState, open_database
from medforged.adapters.sqlite.schema import metadata
from medforged.domain.errors import (
    NoGpuAvailable,
    SessionLimitReached,
    SessionNotFound,
    StartupFailed,
    StateConflict,
)
from medforged.domain.gpus import GpuDevice, GpuHealth, GpuInventory
from medforged.domain.sessions import ACTIVE, SLUG_ALPHABET, TRANSITIONS, Session, SessionStatus, Tier
from medforged.ports.state import Allocation, SessionChange, SessionQuery

pytestmark = pytest.mark.integration

START = datetime(2026, 2, 17, 4, 58, 15, 100535, tzinfo=UTC)


def device(index: int, *, fault: str | None = None, uuid: str | None = None) -> GpuDevice:
    return GpuDevice(
        uuid or f"GPU-{index:08d}", index, "A GPU", f"00000000:{index:02X}:00.0", 32 * 1024**3, fault=fault
    )


def allocation(user: UUID | None = None, *, limit: int = 1, at: datetime = START) -> Allocation:
    return Allocation(uuid4(), user or uuid4(), Tier.PUBLIC, uuid4(), limit, "tank/medforge/workspaces/u/s", at)


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqliteState]:
    opened = SqliteState(*await open_database(tmp_path))
    await opened.record_gpus(GpuInventory(tuple(device(index) for index in range(3))))
    yield opened
    await opened.close()


async def end(state: SqliteState, session: Session) -> Session:
    await state.change(session.id, {SessionStatus.STARTING}, SessionChange(status=SessionStatus.STOPPING))
    return await state.change(session.id, {SessionStatus.STOPPING}, SessionChange(status=SessionStatus.STOPPED))


async def test_an_allocation_is_a_starting_record_on_the_first_free_gpu(state: SqliteState) -> None:
    wanted = allocation()
    session = await state.allocate(wanted)
    assert (session.id, session.user_id, session.status) == (wanted.session_id, wanted.user_id, SessionStatus.STARTING)
    assert (session.gpu_id, session.gpu_uuid) == (0, "GPU-00000000")
    assert session.created_at == START
    assert session.workspace_zfs == wanted.workspace_zfs
    assert len(session.slug) == 8
    assert set(session.slug) <= set(SLUG_ALPHABET)
    assert await state.session(session.id) == session


async def test_every_gpu_is_given_once_and_then_there_is_none(state: SqliteState) -> None:
    taken = [await state.allocate(allocation()) for _ in range(3)]
    assert [session.gpu_id for session in taken] == [0, 1, 2]
    before = await state.revision()
    with pytest.raises(NoGpuAvailable, match="No GPUs available"):
        await state.allocate(allocation())
    assert await state.revision() == before, "a refused allocation wrote something"
    await end(state, taken[1])
    assert (await state.allocate(allocation())).gpu_id == 1


async def test_simultaneous_allocations_never_share_a_gpu(state: SqliteState) -> None:
    outcomes = await asyncio.gather(*(state.allocate(allocation()) for _ in range(20)), return_exceptions=True)
    given = [outcome.gpu_id for outcome in outcomes if isinstance(outcome, Session)]
    assert sorted(given) == [0, 1, 2]
    assert sum(isinstance(outcome, NoGpuAvailable) for outcome in outcomes) == 17


async def test_the_user_limit_counts_active_sessions_only(state: SqliteState) -> None:
    user = uuid4()
    first = await state.allocate(allocation(user))
    with pytest.raises(SessionLimitReached, match="Concurrent session limit reached"):
        await state.allocate(allocation(user))
    await end(state, first)
    await state.allocate(allocation(user))
    await state.allocate(allocation(user, limit=2))
    with pytest.raises(SessionLimitReached):
        await state.allocate(allocation(limit=0))


async def test_the_database_itself_refuses_two_active_sessions_on_one_gpu(state: SqliteState, tmp_path: Path) -> None:
    session = await state.allocate(allocation())
    with sqlite3.connect(tmp_path / "medforged.db") as raw, pytest.raises(sqlite3.IntegrityError, match="gpu_id"):
        raw.execute(
            "INSERT INTO sessions (id, user_id, tier, pack_id, status, gpu_id, slug, workspace_zfs, created_at, revision)"
            " SELECT 'x', user_id, tier, pack_id, 'running', gpu_id, 'other', workspace_zfs, created_at, revision + 100"
            " FROM sessions WHERE id = ?",
            (str(session.id),),
        )
    raw.close()


async def test_sick_disabled_and_absent_gpus_are_not_given(state: SqliteState, tmp_path: Path) -> None:
    known = await state.record_gpus(GpuInventory((device(0, fault="fell off the bus"), device(1))))
    assert [gpu.health for gpu in known] == [GpuHealth.UNHEALTHY, GpuHealth.HEALTHY, GpuHealth.UNHEALTHY]
    assert known[0].reason == "fell off the bus"
    assert known[2].reason is not None
    with sqlite3.connect(tmp_path / "medforged.db") as raw:
        raw.execute("UPDATE gpus SET enabled = 0 WHERE id = 1")
    raw.close()
    with pytest.raises(NoGpuAvailable):
        await state.allocate(allocation())
    await state.record_gpus(GpuInventory(tuple(device(index) for index in range(3))))
    assert (await state.allocate(allocation())).gpu_id == 0


async def test_a_gpu_keeps_its_id_when_indexes_change(state: SqliteState) -> None:
    swapped = GpuInventory((device(0, uuid="GPU-00000002"), device(1, uuid="GPU-new"), device(2, uuid="GPU-00000000")))
    known = {gpu.uuid: gpu for gpu in await state.record_gpus(swapped)}
    assert (known["GPU-00000002"].id, known["GPU-00000002"].index) == (2, 0)
    assert (known["GPU-00000000"].id, known["GPU-00000000"].index) == (0, 2)
    assert known["GPU-new"].id == 3


@pytest.mark.parametrize("source", list(SessionStatus))
@pytest.mark.parametrize("target", list(SessionStatus))
async def test_only_the_transitions_of_the_state_machine_happen(
    state: SqliteState, tmp_path: Path, source: SessionStatus, target: SessionStatus
) -> None:
    session = await state.allocate(allocation())
    with sqlite3.connect(tmp_path / "medforged.db") as raw:
        raw.execute("UPDATE sessions SET status = ?", (source.value,))
    raw.close()
    change = SessionChange(status=target)
    if target in TRANSITIONS[source] or target is source:
        assert (await state.change(session.id, {source}, change)).status is target
    else:
        with pytest.raises(StateConflict):
            await state.change(session.id, {source}, change)
        assert (await state.session(session.id)).status is source


async def test_a_change_from_another_status_than_expected_is_refused(state: SqliteState) -> None:
    session = await state.allocate(allocation())
    with pytest.raises(StateConflict, match="it is starting, not running"):
        await state.change(session.id, {SessionStatus.RUNNING}, SessionChange(status=SessionStatus.STOPPING))
    with pytest.raises(SessionNotFound):
        await state.change(uuid4(), ACTIVE, SessionChange())


async def test_revisions_order_every_change_and_tell_what_came_since(state: SqliteState) -> None:
    first, second = await state.allocate(allocation()), await state.allocate(allocation())
    assert second.revision == first.revision + 1
    changed = await state.change(first.id, {SessionStatus.STARTING}, SessionChange(container_id="c" * 64))
    assert changed.revision == second.revision + 1 == await state.revision()
    assert await state.changed_since(first.revision) == (second, changed)
    assert await state.changed_since(changed.revision) == ()


async def test_pages_are_newest_first_without_gap_or_repetition(state: SqliteState) -> None:
    user = uuid4()
    made = []
    for number in range(7):
        # Two of the same instant: the id decides.
        session = await state.allocate(allocation(user, at=START + timedelta(seconds=number // 2)))
        made.append(await end(state, session))
    seen: list[Session] = []
    while True:
        before = (seen[-1].created_at, seen[-1].id) if seen else None
        page = await state.sessions(SessionQuery(user_id=user, before=before, limit=3))
        if not page:
            break
        seen.extend(page)
    assert seen == sorted(made, key=lambda s: (s.created_at, str(s.id)), reverse=True)
    assert await state.sessions(SessionQuery(user_id=uuid4())) == ()
    assert await state.sessions(SessionQuery(statuses=frozenset({SessionStatus.RUNNING}))) == ()


async def test_a_second_daemon_is_kept_out(state: SqliteState, tmp_path: Path) -> None:
    with pytest.raises(StartupFailed, match="another medforged uses"):
        await open_database(tmp_path)
    await state.close()
    again = SqliteState(*await open_database(tmp_path))
    await again.close()


async def test_state_survives_reopening_and_the_epoch_stays(tmp_path: Path) -> None:
    first = SqliteState(*await open_database(tmp_path))
    await first.record_gpus(GpuInventory((device(0),)))
    session, epoch = await first.allocate(allocation()), await first.epoch()
    await first.close()
    second = SqliteState(*await open_database(tmp_path))
    assert await second.active() == (session,)
    assert await second.epoch() == epoch
    await second.close()


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "medforged.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(StartupFailed, match=r"cannot open the database .*medforged\.db"):
        await open_database(tmp_path)
    # The lock went with the failure: a repaired database opens.
    (tmp_path / "medforged.db").unlink()
    opened = SqliteState(*await open_database(tmp_path))
    await opened.close()


async def test_migrations_make_exactly_the_schema(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine, inspect

    opened = SqliteState(*await open_database(tmp_path))
    await opened.close()
    engine = create_engine(f"sqlite:///{tmp_path / 'medforged.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        partial = {index["name"]: index["dialect_options"] for index in inspect(connection).get_indexes("sessions")}
    engine.dispose()
    assert "starting" in str(partial["one_active_session_per_gpu"]["sqlite_where"])


async def test_an_invented_status_is_refused_by_the_database(state: SqliteState, tmp_path: Path) -> None:
    await state.allocate(allocation())
    with sqlite3.connect(tmp_path / "medforged.db") as raw, pytest.raises(sqlite3.IntegrityError):
        raw.execute("UPDATE sessions SET status = 'paused'")
    raw.close()
