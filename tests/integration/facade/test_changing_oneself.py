"""PATCH /me: who may change an account, what ends with a change, and what happens when two change at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from facade.config import Settings
from tests.integration.facade.conftest import PASSWORD, SITE, Answer, Api, Person

pytestmark = pytest.mark.integration

NEW = "a whole new horse"
Serving = Callable[[Settings], contextlib.AbstractAsyncContextManager[Api]]


async def change(api: Api, cookie: str | None, **body: Any) -> Answer:
    return await api.request("PATCH", "/api/v1/me", token=cookie, json={"current_password": PASSWORD, **body})


async def sign_in(api: Api, email: str, password: str) -> Answer:
    return await api.post("/api/v1/auth/login", json={"email": email, "password": password})


async def me(api: Api, cookie: str) -> int:
    return (await api.get("/api/v1/me", token=cookie)).status


async def api_token(api: Api, person: Person) -> dict[str, str]:
    wanted = {"name": "backup", "scopes": ["account:read"]}
    answer = await api.post("/api/v1/me/tokens", token=person.token, json=wanted)
    return {"Authorization": f"Bearer {answer.data['token']}"}


async def test_a_new_password_ends_every_other_login_and_token(api: Api) -> None:
    person = await api.person()
    other = (await sign_in(api, person.email, PASSWORD)).cookie
    bearer = await api_token(api, person)
    bystander = await api.person()
    for cookie in (person.token, other, bystander.token):
        assert await me(api, cookie) == 200
    assert (await api.get("/api/v1/me", headers=bearer)).status == 200
    changed = await change(api, person.token, password=NEW)
    assert (changed.status, changed.data["user_id"]) == (200, str(person.user_id))
    assert changed.headers["Set-Cookie"] == (
        f"medforge_session={changed.cookie}; Domain=.{SITE}; HttpOnly; Max-Age=2592000; Path=/; SameSite=Lax; Secure"
    )
    assert changed.cookie not in (person.token, other)
    assert await me(api, changed.cookie) == 200
    assert [await me(api, cookie) for cookie in (person.token, other, bystander.token)] == [401, 401, 200]
    assert (await api.get("/api/v1/me", headers=bearer)).status == 401
    assert (await sign_in(api, person.email, PASSWORD)).status == 401
    assert (await sign_in(api, person.email, NEW)).status == 200


async def test_a_new_address_ends_other_logins_and_keeps_tokens(api: Api) -> None:
    person = await api.person()
    other = (await sign_in(api, person.email, PASSWORD)).cookie
    bearer = await api_token(api, person)
    assert (await api.get("/api/v1/me", headers=bearer)).data["email"] == person.email
    changed = await change(api, person.token, email=" New@Example.ORG ")
    assert (changed.status, changed.data["email"]) == (200, "new@example.org")
    assert [await me(api, cookie) for cookie in (person.token, other, changed.cookie)] == [401, 401, 200]
    told = await api.get("/api/v1/me", headers=bearer)
    assert (told.status, told.data["email"]) == (200, "new@example.org")
    assert (await sign_in(api, person.email, PASSWORD)).status == 401
    assert (await sign_in(api, "new@example.org", PASSWORD)).status == 200


async def test_both_at_once(api: Api) -> None:
    person = await api.person()
    assert (await change(api, person.token, email="both@example.org", password=NEW)).status == 200
    assert (await sign_in(api, "both@example.org", NEW)).status == 200


async def test_a_wrong_password_changes_nothing(api: Api) -> None:
    person = await api.person()
    bearer = await api_token(api, person)
    for wrong in ("wrong horse", "", PASSWORD + " "):
        answer = await change(api, person.token, password=NEW, email="x@example.org", current_password=wrong)
        assert (answer.status, answer.json["detail"]) == (403, "The current password is wrong.")
        assert "Set-Cookie" not in answer.headers
    assert await me(api, person.token) == 200
    assert (await api.get("/api/v1/me", headers=bearer)).status == 200
    assert (await sign_in(api, person.email, PASSWORD)).status == 200


async def test_no_token_changes_an_account(api: Api) -> None:
    person = await api.person()
    bearer = await api_token(api, person)
    body = {"current_password": PASSWORD, "password": NEW}
    for cookie in (None, person.token):
        answer = await api.request("PATCH", "/api/v1/me", headers=bearer, token=cookie, json=body)
        assert (answer.status, answer.json["detail"]) == (403, "API tokens cannot be used here.")
    assert (await change(api, None, password=NEW)).status == 401
    assert (await sign_in(api, person.email, PASSWORD)).status == 200


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, [["body"]]),
        ({"password": "1234567"}, [["body", "password"]]),
        ({"password": "x" * 129}, [["body", "password"]]),
        ({"email": "ada"}, [["body", "email"]]),
        ({"email": "ada", "password": "x"}, [["body", "email"], ["body", "password"]]),
        ({"email": None}, [["body", "email"]]),
        ({"password": 1}, [["body", "password"]]),
        ({"password": NEW, "current_password": None}, [["body", "current_password"]]),
        ({"password": NEW, "is_admin": True}, [["body", "is_admin"]]),
    ],
)
async def test_what_is_wrong_with_a_wish_is_told(api: Api, body: dict[str, Any], loc: list[list[str]]) -> None:
    person = await api.person()
    answer = await change(api, person.token, **body)
    assert (answer.status, [error["loc"] for error in answer.json["errors"]]) == (422, loc)
    assert await me(api, person.token) == 200


async def test_the_present_password_has_to_be_given(api: Api) -> None:
    person = await api.person()
    answer = await api.request("PATCH", "/api/v1/me", token=person.token, json={"password": NEW})
    assert (answer.status, answer.json["errors"][0]["loc"]) == (422, ["body", "current_password"])


async def test_a_page_of_another_origin_changes_nothing(api: Api) -> None:
    person = await api.person()
    body = {"current_password": PASSWORD, "password": NEW}
    headers = {"Origin": f"https://s-abcd2345.{SITE}"}
    answer = await api.request("PATCH", "/api/v1/me", token=person.token, json=body, headers=headers)
    assert answer.status == 403
    assert (await sign_in(api, person.email, PASSWORD)).status == 200


async def test_an_address_that_another_has_is_refused_and_nothing_is_changed(api: Api) -> None:
    one, two = await api.person(), await api.person()
    answer = await change(api, one.token, email=two.email.upper(), password=NEW)
    assert (answer.status, answer.json["detail"]) == (409, "Email is already registered.")
    assert await me(api, one.token) == 200
    assert (await sign_in(api, one.email, PASSWORD)).status == 200


async def test_of_many_who_want_one_address_at_once_one_gets_it(api: Api) -> None:
    people = [await api.person() for _ in range(6)]
    wanted = {"email": "wanted@example.org", "password": PASSWORD}
    answers = await asyncio.gather(
        *(change(api, person.token, email="wanted@example.org") for person in people),
        api.post("/api/v1/auth/signup", json=wanted),
    )
    assert sum(answer.status in (200, 201) for answer in answers) == 1
    assert sum(answer.status == 409 for answer in answers) == 6
    losers = [person for person, answer in zip(people, answers, strict=False) if answer.status == 409]
    assert [await me(api, person.token) for person in losers] == [200] * len(losers)


async def test_of_many_changes_of_one_login_at_once_one_is_made(api: Api) -> None:
    person = await api.person()
    passwords = [f"new password {number}" for number in range(6)]
    answers = await asyncio.gather(*(change(api, person.token, password=password) for password in passwords))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 5
    (won,) = [number for number, answer in enumerate(answers) if answer.status == 200]
    assert await me(api, answers[won].cookie) == 200
    signed_in = [(await sign_in(api, person.email, password)).status for password in passwords]
    assert signed_in == [200 if number == won else 401 for number in range(6)]


async def test_of_changes_by_two_logins_at_once_one_is_made(api: Api) -> None:
    person = await api.person()
    other = (await sign_in(api, person.email, PASSWORD)).cookie
    answers = await asyncio.gather(
        change(api, person.token, password=NEW), change(api, other, email="late@example.org")
    )
    assert sorted(answer.status for answer in answers) == [200, 401]


async def test_a_sign_in_that_had_begun_before_the_change_comes_too_late(api: Api) -> None:
    """Whichever comes first in the database: an old password that was right a moment ago leaves no login behind."""
    person = await api.person()
    changing = asyncio.create_task(change(api, person.token, password=NEW))
    entering = [asyncio.create_task(sign_in(api, person.email, PASSWORD)) for _ in range(8)]
    assert (await changing).status == 200
    for answer in await asyncio.gather(*entering):
        assert answer.status in (200, 401)
        if answer.status == 200:
            assert await me(api, answer.cookie) == 401


async def test_a_change_reaches_other_processes_within_a_second(api: Api, settings: Settings, serving: Serving) -> None:
    person = await api.person()
    bearer = await api_token(api, person)
    async with serving(settings) as other:
        assert await me(other, person.token) == 200
        assert (await other.get("/api/v1/me", headers=bearer)).status == 200
        assert (await change(api, person.token, password=NEW)).status == 200
        async with asyncio.timeout(1):
            while await me(other, person.token) != 401:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.02)
            # One revision tells of both.
            assert (await other.get("/api/v1/me", headers=bearer)).status == 401


async def test_a_login_that_was_ended_elsewhere_changes_nothing_meanwhile(
    api: Api, settings: Settings, serving: Serving
) -> None:
    """Who has the cookie and the password, but was signed out: the other process still believes in the cookie."""
    person = await api.person()
    async with serving(settings) as other:
        assert await me(other, person.token) == 200
        async with api.facade.store.writing() as connection:
            await connection.execute(text("DELETE FROM logins"))
        answer = await change(other, person.token, password=NEW)
        assert (answer.status, answer.json["detail"]) == (401, "Authentication required.")
        assert (await sign_in(other, person.email, PASSWORD)).status == 200


async def test_nothing_secret_is_logged(api: Api) -> None:
    with capture_logs() as logs:
        person = await api.person()
        await change(api, person.token, password=NEW, current_password="a wrong secret")
        changed = await change(api, person.token, password=NEW, email="secret@example.org")
        await change(api, changed.cookie, email="bad", current_password=NEW)
    told = repr(logs)
    assert "user.changed_own" in told
    assert "user.change_refused" in told
    for secret in (PASSWORD, NEW, "a wrong secret", person.token, changed.cookie, "secret@example.org", person.email):
        assert secret not in told
