"""The facade's database, whichever kind it is: its migrations, its transactions, and how values come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, insert, inspect, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from facade.config import Database
from facade.startup import StartupFailed
from facade.store.engine import Store
from facade.store.tables import login_revisions, logins, metadata
from facade.store.users import EmailTaken, User, Users
from medforged.contract.exitcodes import ExitCode

pytestmark = pytest.mark.integration

NOW = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


@pytest.fixture
async def database(request: pytest.FixtureRequest, new_database: Callable[[str], Awaitable[str]]) -> str:
    """One of its own for every test, without tables."""
    return await new_database(request.param)


@pytest.fixture
async def another(database: str) -> AsyncIterator[Callable[[], Store]]:
    """Makes what another process would have."""
    made: list[Store] = []

    def make() -> Store:
        made.append(Store.of(Database(url=database)))
        return made[-1]

    yield make
    for store in made:
        await store.close()


@pytest.fixture
async def store(another: Callable[[], Store]) -> Store:
    store = another()
    await store.open()
    return store


def user(email: str = "a@example.org", user_id: UUID | None = None) -> User:
    return User(user_id or uuid4(), email, "hash", True, 3, NOW)


async def revision(store: Store) -> int:
    async with store.reading() as connection:
        return int((await connection.execute(text("SELECT revision FROM login_revisions"))).scalar_one())


async def test_migrations_make_what_the_tables_say(store: Store) -> None:
    def difference(connection: Connection) -> Any:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    def endings(connection: Connection) -> list[Any]:
        return [key["options"].get("ondelete") for key in inspect(connection).get_foreign_keys("logins")]

    async with store.reading() as connection:
        assert await connection.run_sync(difference) == []
        assert await connection.run_sync(endings) == ["CASCADE"]


async def test_opening_again_changes_nothing(another: Callable[[], Store], store: Store) -> None:
    async with store.reading() as connection:
        before = (await connection.execute(text("SELECT version_num FROM alembic_version"))).all()
    await another().open()
    async with store.reading() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).all() == before
        assert (await connection.execute(text("SELECT id, revision FROM login_revisions"))).all() == [(1, 0)]


async def test_several_processes_can_start_at_once(another: Callable[[], Store]) -> None:
    await asyncio.gather(*(another().open() for _ in range(4)))


async def test_a_schema_of_a_later_release(another: Callable[[], Store], store: Store) -> None:
    async with store.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for opening in (another().open(), another().find()):
        with pytest.raises(StartupFailed, match="only a later release knows revision 9999") as caught:
            await opening
        assert caught.value.exit_code is ExitCode.CONFIG


async def test_writers_wait_for_each_other_also_when_they_read_first(
    another: Callable[[], Store], store: Store
) -> None:
    """On SQLite all but one of these would fail if they began as readers; on MariaDB increments would be lost."""

    async def increment(store: Store) -> None:
        async with store.writing() as connection:
            found = (await connection.execute(text("SELECT revision FROM login_revisions"))).scalar_one()
            await asyncio.sleep(0.001)
            await connection.execute(text("UPDATE login_revisions SET revision = :new"), {"new": found + 1})

    second = another()
    await asyncio.gather(*(increment(one) for one in (store, second) for _ in range(10)))
    assert await revision(store) == 20


async def test_a_writer_sees_what_the_one_before_it_has_written(another: Callable[[], Store], store: Store) -> None:
    """Also what it reads from tables that it did not wait for."""
    users, second, began = Users(store), another(), asyncio.Event()

    async def count_then_add() -> int:
        began.set()
        async with second.writing() as connection:
            return int((await connection.execute(text("SELECT count(*) FROM users"))).scalar_one())

    async with store.writing() as connection:
        counting = asyncio.create_task(count_then_add())
        await began.wait()
        await connection.execute(update(login_revisions).values(revision=5))
        await connection.execute(text("DELETE FROM users"))
        await connection.execute(insert(metadata.tables["users"]).values(_columns(user())))
    assert await counting == 1
    assert await users.by_email("a@example.org")


async def test_a_reader_sees_one_state(another: Callable[[], Store], store: Store) -> None:
    users = Users(another())
    async with store.reading() as connection:
        before = (await connection.execute(text("SELECT count(*) FROM users"))).scalar_one()
        await users.add(user())
        assert (await connection.execute(text("SELECT count(*) FROM users"))).scalar_one() == before == 0
    assert await users.by_email("a@example.org")


async def test_an_error_rolls_back(store: Store) -> None:
    async def break_off() -> None:
        async with store.writing() as connection:
            await connection.execute(text("UPDATE login_revisions SET revision = 9"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await break_off()
    assert await revision(store) == 0


async def test_a_broken_off_transaction_leaves_the_pool_as_it_was(store: Store) -> None:
    for _ in range(20):
        async with store.writing() as connection:
            await connection.execute(text("UPDATE login_revisions SET revision = revision + 1"))
            waiting = asyncio.create_task(revision(store))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
    assert await revision(store) == 20


async def test_users_come_back_as_they_were(store: Store) -> None:
    users = Users(store)
    made = user()
    await users.add(made)
    assert await users.by_email("a@example.org") == made
    assert await users.by_id(made.id) == made


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a@example.org", "A@example.org"),
        ("e@example.org", "é@example.org"),
        ("o@example.org", "ö@example.org"),
        ("strasse@example.org", "straße@example.org"),
        ("a@example.org", "a@example.org "),
        ("a@example.org", "a@example.org\x00"),
        ("\u00e9@example.org", "e\u0301@example.org"),
        ("😀@example.org", "😁@example.org"),
        ("a@example.org", "\uff41@example.org"),
    ],
)
async def test_addresses_are_the_same_only_when_every_character_is(store: Store, one: str, other: str) -> None:
    users = Users(store)
    await users.add(user(one))
    assert await users.by_email(other) is None
    await users.add(user(other))
    assert [(await users.by_email(email) or user()).email for email in (one, other)] == [one, other]
    with pytest.raises(EmailTaken):
        await users.add(user(one))


async def test_the_longest_address(store: Store) -> None:
    longest = "€" * 21 + "@" + "ö." * 50 + "example"
    await Users(store).add(user(longest))
    assert await Users(store).by_email(longest)


async def test_a_login_needs_a_user(store: Store) -> None:
    values = {"token_digest": bytes(32), "user_id": uuid4(), "created_at": NOW, "last_used_at": NOW}
    with pytest.raises(IntegrityError):
        async with store.writing() as connection:
            await connection.execute(insert(logins).values(values))


async def test_a_login_ends_with_its_user(store: Store) -> None:
    made = user()
    await Users(store).add(made)
    async with store.writing() as connection:
        for number in range(256):
            values = {"token_digest": bytes([number]) * 32, "user_id": made.id, "created_at": NOW, "last_used_at": NOW}
            await connection.execute(insert(logins).values(values))
    async with store.reading() as connection:
        found = (await connection.execute(logins.select())).all()
    assert {row.token_digest for row in found} == {bytes([number]) * 32 for number in range(256)}
    assert {row.last_used_at for row in found} == {NOW}
    async with store.writing() as connection:
        await connection.execute(text("DELETE FROM users"))
        assert (await connection.execute(logins.select())).all() == []


async def test_errors_do_not_tell_values(store: Store) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with store.writing() as connection:
            await connection.execute(text("SELECT nothing FROM users WHERE email = :email"), {"email": "secret-value"})
    assert "secret-value" not in str(caught.value)


def _columns(made: User) -> dict[str, Any]:
    return {name: getattr(made, name) for name in User.__slots__}
