"""Logins over time, over several processes, and with cookies that somebody else has tossed in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import event, text

from facade.auth.logins import Logins
from facade.auth.revision import Revision
from facade.auth.tokens import new_token
from facade.config import Auth, Database, Settings
from facade.store.engine import Store
from facade.store.logins import LoginRows
from facade.store.revisions import Revisions
from facade.store.users import User, Users
from tests.fakes.clock import SetClock
from tests.integration.facade.conftest import Api

pytestmark = pytest.mark.integration

IDLE, MAXIMUM = timedelta(days=7), timedelta(days=30)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    made = Store.of(Database(url=database))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def another(store: Store, clock: SetClock) -> Callable[..., Logins]:
    """Makes what another process would have."""
    return lambda **options: Logins(
        LoginRows(store), clock, Revision(Revisions(store)), idle_ttl=IDLE, max_ttl=MAXIMUM, **options
    )


@pytest.fixture
def logins(another: Callable[..., Logins]) -> Logins:
    return another()


@pytest.fixture
def queries(store: Store) -> list[str]:
    """Every statement that goes to the database from here on."""
    told: list[str] = []
    event.listen(store._engine.sync_engine, "before_cursor_execute", lambda *args: told.append(args[2]))
    return told


async def user(store: Store, clock: SetClock) -> User:
    made = User(uuid4(), f"{uuid4()}@example.org", "-", False, 1, clock.now())
    await Users(store).add(made)
    return made


async def test_a_known_login_costs_no_query(store: Store, clock: SetClock, logins: Logins, queries: list[str]) -> None:
    token = await logins.start(await user(store, clock))
    assert await logins.identify([token])
    queries.clear()
    for _ in range(100):
        assert await logins.identify([token])
    assert queries == []


async def test_an_unknown_token_costs_one_query(logins: Logins, queries: list[str]) -> None:
    token = new_token()
    assert await logins.identify([token]) is None
    assert [query for query in queries if "logins" in query]
    queries.clear()
    assert await logins.identify([token]) is None
    assert queries == []


async def test_idle_time_ends_a_login_and_use_prolongs_it(store: Store, clock: SetClock, logins: Logins) -> None:
    token = await logins.start(await user(store, clock))
    for _ in range(3):
        clock.advance(days=6)
        assert await logins.identify([token])
    clock.advance(days=7, seconds=-1)
    assert await logins.identify([token])
    clock.advance(days=7)
    assert await logins.identify([token]) is None


async def test_idle_time_counts_for_a_login_that_is_not_in_memory(
    store: Store, clock: SetClock, logins: Logins, another: Callable[..., Logins]
) -> None:
    token = await logins.start(await user(store, clock))
    clock.advance(days=7, seconds=-1)
    assert await another().identify([token])
    clock.advance(seconds=1)
    assert await another().identify([token]) is None


async def test_the_maximum_time_ends_a_login_in_use(store: Store, clock: SetClock, logins: Logins) -> None:
    token = await logins.start(await user(store, clock))
    for _ in range(29):
        clock.advance(days=1)
        assert await logins.identify([token])
    clock.advance(days=1, seconds=-1)
    assert await logins.identify([token])
    clock.advance(seconds=1)
    assert await logins.identify([token]) is None


async def test_last_use_is_written_lazily_and_read_by_others(
    store: Store, clock: SetClock, logins: Logins, another: Callable[..., Logins], queries: list[str]
) -> None:
    token = await logins.start(await user(store, clock))
    clock.advance(days=6)
    assert await logins.identify([token])
    assert not [query for query in queries if query.startswith("UPDATE")]
    await logins.write_uses()
    assert len([query for query in queries if query.startswith("UPDATE")]) == 1
    await logins.write_uses()
    assert len([query for query in queries if query.startswith("UPDATE")]) == 1
    clock.advance(days=6)
    assert await another().identify([token])


async def test_the_use_of_a_login_in_use_is_written_now_and_then(
    store: Store, clock: SetClock, logins: Logins, queries: list[str]
) -> None:
    def updates() -> int:
        return len([query for query in queries if query.startswith("UPDATE logins")])

    token = await logins.start(await user(store, clock))
    assert await logins.identify([token])
    for minutes, written in ((1, 0), (8, 0), (1, 1), (9, 1), (1, 2)):
        clock.advance(minutes=minutes)
        assert await logins.identify([token])
        await logins.write_uses()
        assert updates() == written
    # A use that is followed by a pause, and one that is followed by the end.
    clock.advance(minutes=1)
    assert await logins.identify([token])
    for written in (2, 3):
        clock.advance(seconds=30)
        await logins.write_uses()
        assert updates() == written
    assert await logins.identify([token])
    await logins.write_uses(everything=True)
    assert updates() == 4


async def test_a_use_in_another_process_keeps_a_login_alive_here(
    store: Store, clock: SetClock, logins: Logins, another: Callable[..., Logins]
) -> None:
    token = await logins.start(await user(store, clock))
    assert await logins.identify([token])
    other = another()
    clock.advance(days=6)
    assert await other.identify([token])
    await other.write_uses()
    clock.advance(days=6)
    assert await logins.identify([token])


async def test_revocation_is_immediate_here_and_after_a_poll_elsewhere(
    store: Store, clock: SetClock, logins: Logins, another: Callable[..., Logins]
) -> None:
    token = await logins.start(await user(store, clock))
    other = another()
    assert await logins.identify([token])
    assert await other.identify([token])
    assert await logins.revoke([token]) == 1
    assert await logins.identify([token]) is None
    await other._revision.poll()
    assert await other.identify([token]) is None
    assert await logins.revoke([token]) == 0


async def test_ones_own_revocation_leaves_the_others_in_memory(
    store: Store, clock: SetClock, logins: Logins, queries: list[str]
) -> None:
    await logins._revision.poll()
    kept, gone = [await logins.start(await user(store, clock)) for _ in range(2)]
    assert await logins.identify([kept])
    await logins.revoke([gone])
    await logins._revision.poll()
    queries.clear()
    assert await logins.identify([kept])
    assert queries == []


async def test_a_revocation_overtakes_a_look_up_that_has_begun(store: Store, clock: SetClock) -> None:
    """What was read before the revocation must not be remembered after it."""
    read, go_on = asyncio.Event(), asyncio.Event()

    class Slow(LoginRows):
        async def find(self, digests: object) -> list[object]:  # type: ignore[override]  # a wrapper, not a new contract
            found = await super().find(digests)  # type: ignore[arg-type]  # passed on as it came
            read.set()
            await go_on.wait()
            return found  # type: ignore[return-value]  # passed on as it came

    logins = Logins(Slow(store), clock, Revision(Revisions(store)), idle_ttl=IDLE, max_ttl=MAXIMUM)
    token = await logins.start(await user(store, clock))
    asked = asyncio.create_task(logins.identify([token]))
    await read.wait()
    await logins.revoke([token])
    go_on.set()
    assert await asked is None
    assert await logins.identify([token]) is None


async def test_memory_is_bounded_and_forgets_no_use(
    store: Store, clock: SetClock, another: Callable[..., Logins]
) -> None:
    small = another(capacity=2)
    tokens = [await small.start(await user(store, clock)) for _ in range(4)]
    clock.advance(days=6)
    for token in tokens:
        assert await small.identify([token])
    assert len(small._memory._known) == 2
    await small.write_uses()
    clock.advance(days=6)
    for token in tokens:
        assert await another().identify([token])
    for _ in range(5):
        await small.identify([new_token()])
    assert len(small._memory._unknown) == 2


async def test_a_login_that_made_room_is_as_fresh_as_it_was(
    store: Store, clock: SetClock, another: Callable[..., Logins]
) -> None:
    tiny = another(capacity=1)
    one, two = [await tiny.start(await user(store, clock)) for _ in range(2)]
    clock.advance(days=6)
    assert await tiny.identify([one])
    assert await tiny.identify([two])
    clock.advance(days=6)
    assert await tiny.identify([one])


async def test_expired_rows_are_removed(store: Store, clock: SetClock, logins: Logins) -> None:
    stale = await logins.start(await user(store, clock))
    clock.advance(days=6)
    fresh = await logins.start(await user(store, clock))
    clock.advance(days=1)
    assert await logins.remove_expired() == 1
    assert await logins.identify([stale]) is None
    assert await logins.identify([fresh])


async def test_a_users_logins_go_with_the_user(store: Store, clock: SetClock, logins: Logins) -> None:
    token = await logins.start(await user(store, clock))
    async with store.writing() as connection:
        await connection.execute(text("DELETE FROM users"))
    assert await logins.identify([token]) is None


async def test_tossed_cookies_of_nobody_do_no_harm(api: Api) -> None:
    person = await api.person()
    cookies = "; ".join(f"medforge_session={token}" for token in (new_token(), "x", person.token, new_token()))
    answer = await api.get("/api/v1/me", headers={"Cookie": cookies})
    assert (answer.status, answer.data["user_id"]) == (200, str(person.user_id))


async def test_a_full_header_of_tossed_cookies_does_no_harm(api: Api) -> None:
    person = await api.person()
    tossed = [new_token() for _ in range(1000)]
    cookies = "; ".join(f"medforge_session={token}" for token in [*tossed, person.token])
    assert (await api.get("/api/v1/me", headers={"Cookie": cookies})).status == 200


async def test_cookies_of_two_people_are_nobodys(api: Api) -> None:
    """A tenant's page can set its owner's cookie in a visitor's browser: the visitor must not act as the owner."""
    one, two = await api.person(), await api.person()
    for first, second in ((one, two), (two, one)):
        cookies = f"medforge_session={first.token}; medforge_session={second.token}"
        assert (await api.get("/api/v1/me", headers={"Cookie": cookies})).status == 401


async def test_two_cookies_of_one_person_are_theirs(api: Api) -> None:
    person = await api.person()
    second = await api.post("/api/v1/auth/login", json={"email": person.email, "password": "correct horse"})
    cookies = f"medforge_session={person.token}; medforge_session={second.cookie}"
    assert (await api.get("/api/v1/me", headers={"Cookie": cookies})).status == 200
    await api.post("/api/v1/auth/logout", headers={"Cookie": cookies})
    for token in (person.token, second.cookie):
        assert (await api.get("/api/v1/me", token=token)).status == 401


async def test_logout_reaches_other_processes_within_a_second(
    api: Api, settings: Settings, serving: Callable[[Settings], contextlib.AbstractAsyncContextManager[Api]]
) -> None:
    person = await api.person()
    async with serving(settings) as other:
        assert (await other.get("/api/v1/me", token=person.token)).status == 200
        await api.post("/api/v1/auth/logout", token=person.token)
        async with asyncio.timeout(1):
            while (await other.get("/api/v1/me", token=person.token)).status != 401:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.02)


async def test_times_are_the_configured_ones(
    api: Api,
    settings: Settings,
    clock: SetClock,
    serving: Callable[[Settings], contextlib.AbstractAsyncContextManager[Api]],
) -> None:
    short = msgspec.structs.replace(settings, auth=Auth(idle_ttl_seconds=60, max_ttl_seconds=100))
    async with serving(short) as other:
        person = await other.person()
        clock.advance(seconds=59)
        assert (await other.get("/api/v1/me", token=person.token)).status == 200
        clock.advance(seconds=41)
        assert (await other.get("/api/v1/me", token=person.token)).status == 401
