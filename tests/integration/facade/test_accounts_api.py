"""Signing up, in and out, and who one is."""

from __future__ import annotations

import asyncio
from typing import Any

import argon2
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from tests.integration.facade.conftest import PASSWORD, SITE, Api

pytestmark = pytest.mark.integration

GOOD = {"email": "ada@example.org", "password": PASSWORD}


async def test_signup_signs_in(api: Api) -> None:
    answer = await api.post("/api/v1/auth/signup", json={**GOOD, "email": " Ada@Example.org "})
    assert answer.status == 201
    assert set(answer.data) == {"user_id", "email", "is_admin", "max_concurrent_sessions"}
    assert (answer.data["email"], answer.data["is_admin"], answer.data["max_concurrent_sessions"]) == (
        "ada@example.org",
        False,
        1,
    )
    assert answer.headers["Set-Cookie"] == (
        f"medforge_session={answer.cookie}; Domain=.{SITE}; HttpOnly; Max-Age=2592000; Path=/; SameSite=Lax; Secure"
    )
    me = await api.get("/api/v1/me", token=answer.cookie)
    assert (me.status, me.data) == (200, answer.data)


async def test_the_token_is_stored_as_a_digest_only(api: Api) -> None:
    token = (await api.post("/api/v1/auth/signup", json=GOOD)).cookie
    async with api.facade.store.reading() as connection:
        rows = (await connection.execute(text("SELECT * FROM logins"))).all()
        stored = (await connection.execute(text("SELECT password_hash FROM users"))).scalar_one()
    assert len(rows) == 1
    assert token not in repr(rows)
    assert stored.startswith("$argon2id$")


@pytest.mark.parametrize(
    "email", ["ada@example.org", "ADA@EXAMPLE.ORG", " ada@example.org"], ids=["same", "case", "space"]
)
async def test_an_address_is_taken_once(api: Api, email: str) -> None:
    await api.post("/api/v1/auth/signup", json=GOOD)
    answer = await api.post("/api/v1/auth/signup", json={**GOOD, "email": email})
    assert (answer.status, answer.json["detail"]) == (409, "Email is already registered.")
    assert "Set-Cookie" not in answer.headers


async def test_of_many_signups_at_once_one_wins(api: Api) -> None:
    answers = await asyncio.gather(*(api.post("/api/v1/auth/signup", json=GOOD) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 9


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"email": "ada@example.org"}, [["body", "password"]]),
        ({"password": PASSWORD}, [["body", "email"]]),
        ({**GOOD, "email": "ada"}, [["body", "email"]]),
        ({**GOOD, "password": "1234567"}, [["body", "password"]]),
        ({**GOOD, "password": "x" * 129}, [["body", "password"]]),
        ({"email": "ada", "password": "x"}, [["body", "email"], ["body", "password"]]),
        ({**GOOD, "is_admin": True}, [["body", "is_admin"]]),
        ({**GOOD, "email": 1}, [["body", "email"]]),
        ({**GOOD, "password": None}, [["body", "password"]]),
    ],
)
async def test_signup_refuses(api: Api, body: dict[str, Any], loc: list[list[str]]) -> None:
    answer = await api.post("/api/v1/auth/signup", json=body)
    assert answer.status == 422
    assert answer.json["type"] == "https://medforge.dev/problems/validation/request"
    assert [error["loc"] for error in answer.json["errors"]] == loc


async def test_login(api: Api) -> None:
    first = await api.post("/api/v1/auth/signup", json=GOOD)
    answer = await api.post("/api/v1/auth/login", json={**GOOD, "email": "ADA@example.org"})
    assert (answer.status, answer.data) == (200, first.data)
    assert answer.cookie != first.cookie
    for token in (first.cookie, answer.cookie):
        assert (await api.get("/api/v1/me", token=token)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {**GOOD, "password": "wrong horse"},
        {**GOOD, "password": ""},
        {**GOOD, "password": PASSWORD + " "},
        {**GOOD, "email": "bob@example.org"},
        {**GOOD, "email": "not an address"},
        {**GOOD, "email": ""},
        {**GOOD, "email": "ada@example.org\x00"},
        {**GOOD, "email": "' OR 1=1 --"},
    ],
)
async def test_every_failed_login_says_the_same(api: Api, body: dict[str, str]) -> None:
    await api.post("/api/v1/auth/signup", json=GOOD)
    answer = await api.post("/api/v1/auth/login", json=body)
    assert answer.status == 401
    assert answer.json["detail"] == "Invalid email or password."
    assert "Set-Cookie" not in answer.headers


async def test_signing_in_again_ends_the_login_that_the_browser_had(api: Api) -> None:
    person = await api.person()
    again = await api.post("/api/v1/auth/login", json={"email": person.email, "password": PASSWORD}, token=person.token)
    assert (await api.get("/api/v1/me", token=person.token)).status == 401
    assert (await api.get("/api/v1/me", token=again.cookie)).status == 200


async def test_a_failed_login_ends_nothing(api: Api) -> None:
    person = await api.person()
    await api.post("/api/v1/auth/login", json={"email": person.email, "password": "wrong horse"}, token=person.token)
    assert (await api.get("/api/v1/me", token=person.token)).status == 200


async def test_logout(api: Api) -> None:
    person = await api.person()
    assert (await api.get("/api/v1/me", token=person.token)).status == 200
    answer = await api.post("/api/v1/auth/logout", token=person.token)
    assert (answer.status, answer.data) == (200, {"message": "Signed out."})
    assert answer.headers["Set-Cookie"] == (
        'medforge_session=""; Domain=.medforge.example.test; HttpOnly; Max-Age=0; Path=/; SameSite=Lax; Secure'
    )
    assert (await api.get("/api/v1/me", token=person.token)).status == 401


async def test_logout_is_for_anyone_and_can_be_repeated(api: Api) -> None:
    person = await api.person()
    for token in (None, "x" * 43, person.token, person.token):
        assert (await api.post("/api/v1/auth/logout", token=token)).status == 200


async def test_identity_headers_say_nothing(api: Api) -> None:
    person = await api.person(admin=True)
    named = {
        "X-User-Id": str(person.user_id),
        "X-Forwarded-User": person.email,
        "Authorization": f"Bearer {person.token}",
    }
    assert (await api.get("/api/v1/me", headers=named)).status == 401


async def test_an_older_hash_is_replaced_at_login(api: Api) -> None:
    person = await api.person()
    older = argon2.PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(PASSWORD)
    async with api.facade.store.writing() as connection:
        await connection.execute(text("UPDATE users SET password_hash = :hash"), {"hash": older})
    credentials = {"email": person.email, "password": PASSWORD}
    assert (await api.post("/api/v1/auth/login", json=credentials)).status == 200
    user = await api.facade.users.by_email(person.email)
    assert user is not None
    assert user.password_hash != older
    assert (await api.post("/api/v1/auth/login", json=credentials)).status == 200


async def test_nothing_secret_is_logged(api: Api) -> None:
    with capture_logs() as logs:
        person = await api.person()
        await api.post("/api/v1/auth/login", json={"email": person.email, "password": "a wrong secret"})
        await api.get("/api/v1/me", token=person.token)
        await api.post("/api/v1/auth/logout", token=person.token)
    told = repr(logs)
    assert len(logs) >= 6
    for secret in (PASSWORD, "a wrong secret", person.token, person.email):
        assert secret not in told
