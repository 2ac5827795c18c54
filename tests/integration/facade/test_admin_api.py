"""What admins do with the accounts and sessions of others, and what they cannot do to each other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from facade.config import Settings
from medforged.contract.sessions import SessionStatus
from tests.fakes.clock import SetClock
from tests.fakes.daemon import FakeDaemon, aged, make_session
from tests.integration.facade.conftest import PASSWORD, Answer, Api, Person

pytestmark = pytest.mark.integration

USERS = "/api/v1/admin/users"
SESSIONS = "/api/v1/admin/sessions"
FIELDS = {"user_id", "email", "is_admin", "is_disabled", "max_concurrent_sessions", "created_at"}
Serving = Callable[[Settings], contextlib.AbstractAsyncContextManager[Api]]


async def change(api: Api, admin: Person, user: Person, **body: Any) -> Answer:
    return await api.request("PATCH", f"{USERS}/{user.user_id}", token=admin.token, json=body)


async def me(api: Api, person: Person) -> int:
    return (await api.get("/api/v1/me", token=person.token)).status


async def sign_in(api: Api, person: Person, password: str = PASSWORD) -> Answer:
    return await api.post("/api/v1/auth/login", json={"email": person.email, "password": password})


async def api_token(api: Api, person: Person, *scopes: str) -> dict[str, str]:
    answer = await api.post("/api/v1/me/tokens", token=person.token, json={"name": "x", "scopes": list(scopes)})
    assert answer.status == 201, answer.body
    return {"Authorization": f"Bearer {answer.data['token']}"}


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("GET", USERS, None),
        ("PATCH", f"{USERS}/{uuid4()}", {"is_admin": True}),
        ("GET", SESSIONS, None),
        ("POST", f"{SESSIONS}/{uuid4()}/stop", None),
    ],
)
async def test_they_are_for_admins_alone(api: Api, verb: str, path: str, body: Any) -> None:
    person, admin = await api.person(), await api.person(admin=True)
    assert (await api.request(verb, path, json=body)).status == 401
    refused = await api.request(verb, path, token=person.token, json=body)
    assert (refused.status, refused.json["code"]) == (403, "admin_access_denied")
    assert (await api.request(verb, path, token=admin.token, json=body)).status in (200, 404)
    # By token, the scope is needed, and it makes nobody an admin.
    needed = "admin:read" if verb == "GET" else "admin:write"
    other = "admin:write" if verb == "GET" else "admin:read"
    lacking = await api.request(verb, path, headers=await api_token(api, admin, other, "sessions:read"), json=body)
    assert lacking.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'
    bearer = await api_token(api, admin, needed)
    assert (await api.request(verb, path, headers=bearer, json=body)).status in (200, 404)
    second = await api.person(admin=True)
    assert (await change(api, second, admin, is_admin=False)).status == 200
    demoted = await api.request(verb, path, headers=bearer, json=body)
    assert (demoted.status, demoted.json["code"]) == (403, "admin_access_denied")


async def test_accounts_are_listed_page_by_page(api: Api, clock: SetClock) -> None:
    people = []
    for number in range(5):
        people.append(await api.person(admin=number == 0))
        if number != 2:  # two are made in the same moment
            clock.advance(seconds=1)
    seen: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await api.get(f"{USERS}?limit=2" + (f"&cursor={cursor}" if cursor else ""), token=people[0].token)
        assert page.status == 200
        assert page.json["meta"]["limit"] == 2
        seen += page.data
        cursor = page.json["meta"]["next_cursor"]
        assert page.json["meta"]["has_more"] is (cursor is not None)
        if cursor is None:
            break
    assert all(set(user) == FIELDS for user in seen)
    assert {user["user_id"] for user in seen} == {str(person.user_id) for person in people}
    assert [user["created_at"] for user in seen] == sorted((user["created_at"] for user in seen), reverse=True)
    assert len(seen) == 5


async def test_filters(api: Api) -> None:
    admin, one, two = await api.person(admin=True), await api.person(), await api.person()
    await change(api, admin, two, is_disabled=True)
    for address in ("a_b@example.org", "axb@example.org", "a%b@example.org"):
        await api.post("/api/v1/auth/signup", json={"email": address, "password": PASSWORD})

    async def listed(query: str) -> set[str]:
        answer = await api.get(f"{USERS}?{query}", token=admin.token)
        assert answer.status == 200, answer.body
        return {user["email"] for user in answer.data}

    assert await listed("is_admin=true") == {admin.email}
    assert await listed("is_disabled=true") == {two.email}
    assert await listed("is_disabled=false&email=PERSON") == {admin.email, one.email}
    assert await listed("email=person2") == {one.email}
    assert await listed("email=a_b") == {"a_b@example.org"}
    assert await listed("email=a%25b") == {"a%b@example.org"}
    assert await listed("email=nobody") == set()
    for query, status in (("is_admin=maybe", 422), ("admin=true", 422), ("limit=0", 400), ("cursor=x", 400)):
        assert (await api.get(f"{USERS}?{query}", token=admin.token)).status == status


async def test_what_an_account_may_do_is_changed_at_once(api: Api, daemon: FakeDaemon) -> None:
    admin, person = await api.person(admin=True), await api.person()
    bearer = await api_token(api, person, "account:read")
    assert (await api.get("/api/v1/me", headers=bearer)).data["max_concurrent_sessions"] == 1
    answer = await change(api, admin, person, max_concurrent_sessions=2, is_admin=True)
    assert answer.status == 200
    assert (answer.data["max_concurrent_sessions"], answer.data["is_admin"], answer.data["is_disabled"]) == (
        2,
        True,
        False,
    )
    told = (await api.get("/api/v1/me", token=person.token)).data
    assert (told["max_concurrent_sessions"], told["is_admin"]) == (2, True)
    assert (await api.get("/api/v1/me", headers=bearer)).data["max_concurrent_sessions"] == 2
    assert (await api.get(USERS, token=person.token)).status == 200
    assert (await change(api, admin, person, is_admin=False)).status == 200
    assert (await api.get(USERS, token=person.token)).status == 403


async def test_a_disabled_account_is_signed_out_at_once_and_stays_out(api: Api) -> None:
    admin, person = await api.person(admin=True), await api.person()
    second = (await sign_in(api, person)).cookie
    bearer = await api_token(api, person, "account:read")
    assert (await api.get("/api/v1/me", headers=bearer)).status == 200
    assert (await change(api, admin, person, is_disabled=True)).data["is_disabled"] is True
    assert await me(api, person) == 401
    assert (await api.get("/api/v1/me", token=second)).status == 401
    assert (await api.get("/api/v1/me", headers=bearer)).status == 401
    # Who knows the password is told, anybody else is told what they are told of an address that does not exist.
    refused = await sign_in(api, person)
    assert (refused.status, refused.json["detail"]) == (403, "This account is disabled.")
    assert "Set-Cookie" not in refused.headers
    wrong, unknown = (
        await sign_in(api, person, "wrong horse"),
        await sign_in(api, Person(uuid4(), "no@example.org", "")),
    )
    for answer in (wrong, unknown):
        assert (answer.status, answer.json["detail"]) == (401, "Invalid email or password.")
    taken = await api.post("/api/v1/auth/signup", json={"email": person.email, "password": PASSWORD})
    assert taken.status == 409
    # Enabled again, nothing of what had ended comes back.
    assert (await change(api, admin, person, is_disabled=False)).status == 200
    assert await me(api, person) == 401
    assert (await api.get("/api/v1/me", headers=bearer)).status == 401
    assert (await sign_in(api, person)).status == 200


async def test_disabling_reaches_other_processes_within_a_second(
    api: Api, settings: Settings, serving: Serving
) -> None:
    admin, person = await api.person(admin=True), await api.person()
    async with serving(settings) as other:
        assert await me(other, person) == 200
        await change(api, admin, person, is_disabled=True)
        async with asyncio.timeout(1):
            while await me(other, person) != 401:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.02)


async def test_a_sign_in_that_had_begun_before_the_account_was_disabled_comes_too_late(api: Api) -> None:
    admin, person = await api.person(admin=True), await api.person()
    disabling = asyncio.create_task(change(api, admin, person, is_disabled=True))
    entering = [asyncio.create_task(sign_in(api, person)) for _ in range(8)]
    assert (await disabling).status == 200
    for answer in await asyncio.gather(*entering):
        assert answer.status in (200, 401, 403)
        if answer.status == 200:
            assert (await api.get("/api/v1/me", token=answer.cookie)).status == 401


async def test_the_last_admin_stays(api: Api) -> None:
    admin = await api.person(admin=True)
    for body in ({"is_admin": False}, {"is_disabled": True}, {"is_admin": False, "is_disabled": True}):
        answer = await change(api, admin, admin, **body)
        assert (answer.status, answer.json["detail"]) == (409, "The last admin can be neither demoted nor disabled.")
    assert (await change(api, admin, admin, max_concurrent_sessions=5)).status == 200
    # A disabled admin is none.
    other = await api.person(admin=True)
    assert (await change(api, admin, other, is_disabled=True)).status == 200
    assert (await change(api, admin, admin, is_admin=False)).status == 409
    assert (await change(api, admin, other, is_admin=False)).status == 200


async def test_of_two_admins_who_demote_each_other_at_once_one_wins(api: Api) -> None:
    for _ in range(5):
        one, two = await api.person(admin=True), await api.person(admin=True)
        answers = await asyncio.gather(change(api, one, two, is_admin=False), change(api, two, one, is_disabled=True))
        # The loser is no admin any more by the time it is their turn.
        assert sorted(answer.status for answer in answers) == [200, 403]
        async with api.facade.store.reading() as connection:
            left = await connection.execute(text("SELECT COUNT(*) FROM users WHERE is_admin AND NOT is_disabled"))
            assert left.scalar_one() == 1
        async with api.facade.store.writing() as connection:
            await connection.execute(text("UPDATE users SET is_admin = 0"))
        await api.facade.revision.poll()


async def test_of_two_admins_who_leave_at_once_one_stays(api: Api) -> None:
    one, two = await api.person(admin=True), await api.person(admin=True)
    answers = await asyncio.gather(*(change(api, admin, admin, is_admin=False) for admin in (one, two)))
    assert sorted(answer.status for answer in answers) == [200, 409]


async def test_who_was_demoted_elsewhere_makes_no_other_an_admin_meanwhile(
    api: Api, settings: Settings, serving: Serving
) -> None:
    former, friend = await api.person(admin=True), await api.person()
    await api.person(admin=True)
    async with serving(settings) as other:
        assert (await other.get(USERS, token=former.token)).status == 200
        async with api.facade.store.writing() as connection:
            # As another process does it, but without telling.
            await connection.execute(
                text("UPDATE users SET is_admin = 0 WHERE email = :email"), {"email": former.email}
            )
        assert (await other.get(USERS, token=former.token)).status == 200
        refused = await change(other, former, friend, is_admin=True)
        assert (refused.status, refused.json["code"]) == (403, "admin_access_denied")


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, ["body"]),
        ({"is_admin": None}, ["body", "is_admin"]),
        ({"is_admin": "yes"}, ["body", "is_admin"]),
        ({"max_concurrent_sessions": -1}, ["body", "max_concurrent_sessions"]),
        ({"max_concurrent_sessions": 1001}, ["body", "max_concurrent_sessions"]),
        ({"email": "x@example.org"}, ["body", "email"]),
        ({"password": PASSWORD}, ["body", "password"]),
    ],
)
async def test_what_is_wrong_with_a_change_is_told(api: Api, body: dict[str, Any], loc: list[str]) -> None:
    admin = await api.person(admin=True)
    answer = await change(api, admin, admin, **body)
    assert (answer.status, answer.json["errors"][0]["loc"]) == (422, loc)


async def test_an_account_that_does_not_exist(api: Api) -> None:
    admin = await api.person(admin=True)
    answer = await change(api, admin, Person(uuid4(), "", ""), is_admin=True)
    assert (answer.status, answer.json["detail"]) == (404, "User not found.")
    answer = await api.request("PATCH", f"{USERS}/me", token=admin.token, json={"is_admin": False})
    assert answer.status == 422


async def test_everybodys_sessions(api: Api, daemon: FakeDaemon) -> None:
    admin, one, two = await api.person(admin=True), await api.person(), await api.person()
    mine = [await daemon.put(aged(make_session(one.user_id), seconds)) for seconds in (1, 3)]
    theirs = await daemon.put(aged(make_session(two.user_id), 2))
    await daemon.end(mine[1].id, SessionStatus.ERROR)

    async def listed(query: str = "") -> list[UUID]:
        answer = await api.get(f"{SESSIONS}?{query}", token=admin.token)
        assert answer.status == 200, answer.body
        return [UUID(session["id"]) for session in answer.data]

    assert await listed() == [mine[0].id, theirs.id, mine[1].id]
    assert await listed(f"user_id={one.user_id}") == [mine[0].id, mine[1].id]
    assert await listed("status=running") == [mine[0].id, theirs.id]
    assert await listed(f"status=error&user_id={two.user_id}") == []
    first = await api.get(f"{SESSIONS}?limit=2", token=admin.token)
    assert await listed(f"cursor={first.json['meta']['next_cursor']}") == [mine[1].id]
    assert (await api.get(f"{SESSIONS}?user_id=x", token=admin.token)).status == 422


async def test_an_admin_stops_anybodys_session(api: Api, daemon: FakeDaemon) -> None:
    admin, person = await api.person(admin=True), await api.person()
    session = await daemon.put(make_session(person.user_id))
    path = f"{SESSIONS}/{session.id}/stop"
    for _ in range(2):
        answer = await api.post(path, token=admin.token)
        assert (answer.status, answer.data) == (202, {"message": "Session stop requested."})
    await daemon.end(session.id)
    assert (await api.post(path, token=admin.token)).data == {"message": "Session already terminal."}
    assert (await api.post(f"{SESSIONS}/{uuid4()}/stop", token=admin.token)).status == 404
    assert (await api.post(path, token=admin.token, headers={"Origin": "https://evil.example"})).status == 403
