"""The daemon's database: GPUs out of use, steps, and what its failures are told as."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from medforged.adapters.sqlite import SqliteState, open_database
from medforged.domain.errors import GpuNotFound, NoGpuAvailable, StateConflict, StateError
from medforged.domain.gpus import GpuDevice, GpuInventory
from medforged.domain.sessions import Session, SessionStatus, SessionStep, StopReason, Tier
from medforged.ports.state import Allocation, SessionChange, SessionQuery

pytestmark = pytest.mark.integration

START = datetime(2026, 2, 17, 4, 58, 15, 100535, tzinfo=UTC)
INVENTORY = GpuInventory(
    tuple(GpuDevice(f"GPU-{index}", index, "A GPU", f"0000:0{index}:00.0", 32 << 30) for index in range(2))
)


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqliteState]:
    opened = SqliteState(*await open_database(tmp_path, busy_timeout_ms=50))
    await opened.record_gpus(INVENTORY)
    yield opened
    await opened.close()


async def allocate(state: SqliteState) -> Session:
    return await state.allocate(Allocation(uuid4(), uuid4(), Tier.PUBLIC, uuid4(), 1, "tank/u/s", START))


async def end(state: SqliteState, session: Session, quarantine: str | None) -> Session:
    await state.change(session.id, {session.status}, SessionChange(status=SessionStatus.STOPPING))
    change = SessionChange(status=SessionStatus.STOPPED, step=SessionStep.DONE, gpu_quarantine=quarantine)
    return await state.change(session.id, {SessionStatus.STOPPING}, change)


async def test_a_gpu_is_quarantined_in_the_transaction_that_ends_its_session(state: SqliteState) -> None:
    first = await allocate(state)
    await end(state, first, "process 7 is still on it")
    gpu = await state.gpu(first.gpu_id)
    assert (gpu.quarantine, gpu.quarantine_session_id) == ("process 7 is still on it", first.id)
    assert not gpu.usable
    assert (await allocate(state)).gpu_id != first.gpu_id
    with pytest.raises(NoGpuAvailable):
        await allocate(state)
    # Looks at the driver say nothing about it.
    await state.record_gpus(INVENTORY)
    assert (await state.explain_gpu(first.gpu_id, "process 8 as well")).quarantine == "process 8 as well"
    released = await state.release_gpu(first.gpu_id)
    assert (released.quarantine, released.quarantine_session_id, released.usable) == (None, None, True)
    assert (await allocate(state)).gpu_id == first.gpu_id


async def test_an_end_that_is_refused_quarantines_nothing(state: SqliteState) -> None:
    session = await allocate(state)
    with pytest.raises(StateConflict):
        await state.change(
            session.id, {SessionStatus.STARTING}, SessionChange(status=SessionStatus.STOPPED, gpu_quarantine="x")
        )
    assert (await state.gpu(session.gpu_id)).quarantine is None


async def test_disabled_gpus_are_not_given_and_keep_their_session(state: SqliteState) -> None:
    session = await allocate(state)
    for gpu_id in (0, 1):
        assert not (await state.enable_gpu(gpu_id, enabled=False)).enabled
    assert await state.gpu_holders() == {session.gpu_id: session.id}
    with pytest.raises(NoGpuAvailable):
        await allocate(state)
    assert (await state.enable_gpu(1, enabled=True)).usable
    assert (await allocate(state)).gpu_id == 1
    for call in (state.gpu(9), state.enable_gpu(9, enabled=True), state.release_gpu(9)):
        with pytest.raises(GpuNotFound, match="GPU 9"):
            await call


async def test_steps_and_endings_are_kept(state: SqliteState) -> None:
    session = await allocate(state)
    assert (session.step, session.ending) == (SessionStep.WORKSPACE, None)
    change = SessionChange(status=SessionStatus.STOPPING, step=SessionStep.STOP, ending=StopReason.CONTAINER_DEATH)
    changed = await state.change(session.id, {SessionStatus.STARTING}, change)
    assert (changed.step, changed.ending) == (SessionStep.STOP, StopReason.CONTAINER_DEATH)
    assert await state.session(session.id) == changed


async def test_which_ids_are_recorded(state: SqliteState) -> None:
    session = await allocate(state)
    assert await state.recorded({session.id, uuid4()}) == {session.id}
    assert await state.recorded([uuid4() for _ in range(2000)]) == frozenset()
    assert await state.recorded(()) == frozenset()


async def test_reads_go_on_while_another_program_writes_and_writes_say_why_they_cannot(
    state: SqliteState, tmp_path: Path
) -> None:
    session = await allocate(state)
    with closing(sqlite3.connect(tmp_path / "medforged.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert await state.active() == (session,)
        with pytest.raises(StateError, match=r"cannot write the daemon's database: database is locked; check"):
            await allocate(state)
        other.execute("ROLLBACK")
    assert (await allocate(state)).gpu_id == 1
    assert len(await state.sessions(SessionQuery())) == 2


async def test_a_full_database_keeps_nothing_of_a_transaction(state: SqliteState) -> None:
    before = await state.revision()

    def no_more_pages(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    async with state._engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        await driver._execute(no_more_pages, driver._conn)
    refused = 0
    for _ in range(2000):
        try:
            session = await allocate(state)
        except StateError as error:
            assert "full" in str(error)  # noqa: PT017 - what is met first depends on which connection is used
            refused += 1
            break
        except NoGpuAvailable:
            raise AssertionError("GPUs ran out before the pages") from None
        await end(state, session, None)
    assert refused
    sessions = await state.sessions(SessionQuery(limit=5000))
    assert await state.revision() == before + 3 * len(sessions)


async def test_a_database_of_the_first_version_is_carried_over(tmp_path: Path) -> None:
    from alembic import command

    from medforged.adapters.sqlite import engine

    path = tmp_path / "medforged.db"
    real = command.upgrade
    try:
        command.upgrade = lambda config, _to: real(config, "0001")
        engine._migrate(path)
    finally:
        command.upgrade = real
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("INSERT INTO gpus VALUES (0, 'GPU-0', 0, 'A GPU', '0000:00:00.0', 1, 1, 1, NULL)")
        for number, (status, message) in enumerate(
            [("stopped", None), ("stopping", "create failed: x"), ("error", "snapshot failed: y")]
        ):
            raw.execute(
                "INSERT INTO sessions (id, user_id, tier, pack_id, status, gpu_id, slug, workspace_zfs, created_at,"
                " error_message, revision) VALUES (?, ?, 'public', ?, ?, 0, ?, 'tank/u/s', ?, ?, ?)",
                (str(uuid4()), str(uuid4()), str(uuid4()), status, f"slug{number}", "2026-02-17T04:58:15.100535Z",
                 message, number + 1),
            )  # fmt: skip
    opened = SqliteState(*await open_database(tmp_path))
    try:
        found = {session.status.value: session for session in await opened.sessions(SessionQuery())}
    finally:
        await opened.close()
    assert (found["stopped"].step, found["stopped"].ending) == (SessionStep.DONE, None)
    assert (found["stopping"].step, found["stopping"].ending) == (SessionStep.STOP, StopReason.CREATE_FAILED)
    assert found["error"].step is SessionStep.DONE
