"""API tokens: made once, limited by scope and time, dead at once when revoked, and never a way to anything else."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text
from structlog.testing import capture_logs

from facade.auth.principals import Scope
from facade.auth.tokens import new_api_token
from facade.config import Settings
from facade.store.api_tokens import MAX_TOKENS
from tests.fakes.clock import SetClock
from tests.fakes.daemon import FakeDaemon, make_session
from tests.integration.facade.conftest import PASSWORD, SITE, Answer, Api, Person

pytestmark = pytest.mark.integration

EVERY_SCOPE = [scope.value for scope in Scope]
USER_SCOPES = [scope for scope in EVERY_SCOPE if not scope.startswith("admin:")]
Serving = Callable[[Settings], contextlib.AbstractAsyncContextManager[Api]]


async def make(api: Api, person: Person, *scopes: str, **more: Any) -> str:
    """A new token's text."""
    wanted = {"name": "backup", "scopes": list(scopes), **more}
    answer = await api.post("/api/v1/me/tokens", token=person.token, json=wanted)
    assert answer.status == 201, answer.body
    told: str = answer.data["token"]
    return told


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def me(api: Api, token: str, **options: Any) -> int:
    return (await api.get("/api/v1/me", headers=bearing(token), **options)).status


def challenge(answer: Answer) -> str:
    found: str = answer.headers["WWW-Authenticate"]
    return found


async def test_a_token_is_told_once_and_stored_as_a_digest(api: Api, clock: SetClock) -> None:
    person = await api.person()
    wanted = {"name": "nightly backup", "scopes": ["sessions:read", "account:read"]}
    answer = await api.post("/api/v1/me/tokens", token=person.token, json=wanted)
    assert answer.status == 201
    assert set(answer.data) == {"token", "api_token"}
    assert re.fullmatch(r"mft_[A-Za-z0-9_-]{43}", answer.data["token"])
    told = answer.data["api_token"]
    assert (told["name"], told["scopes"]) == ("nightly backup", ["account:read", "sessions:read"])
    assert told["last_used_at"] is None
    listed = await api.get("/api/v1/me/tokens", token=person.token)
    assert listed.data == [told]
    assert answer.data["token"] not in listed.body.decode()
    async with api.facade.store.reading() as connection:
        rows = (await connection.execute(text("SELECT * FROM api_tokens"))).all()
    assert len(rows) == 1
    assert answer.data["token"] not in repr(rows)
    assert answer.data["token"].removeprefix("mft_") not in repr(rows)


async def test_it_is_its_users_and_its_use_is_noted(api: Api, clock: SetClock) -> None:
    person = await api.person()
    token = await make(api, person, "account:read")
    clock.advance(days=2)
    answer = await api.get("/api/v1/me", headers=bearing(token))
    assert (answer.status, answer.data["user_id"]) == (200, str(person.user_id))
    assert "Set-Cookie" not in answer.headers
    await api.facade.api_tokens.write_uses()
    (listed,) = (await api.get("/api/v1/me/tokens", token=person.token)).data
    assert listed["last_used_at"] > listed["created_at"]


@pytest.mark.parametrize(("days", "asked"), [(90, {}), (1, {"expires_in_days": 1}), (366, {"expires_in_days": 366})])
async def test_it_expires(api: Api, clock: SetClock, days: int, asked: dict[str, int]) -> None:
    person = await api.person()
    token = await make(api, person, "account:read", **asked)
    clock.advance(days=days, seconds=-1)
    assert await me(api, token) == 200
    clock.advance(seconds=1)
    answer = await api.get("/api/v1/me", headers=bearing(token))
    assert (answer.status, challenge(answer)) == (401, 'Bearer error="invalid_token"')
    assert await api.facade.api_tokens.of_user(person.user_id) == []
    assert await api.facade.api_tokens.remove_expired() == 1


async def test_a_known_token_asks_the_database_nothing(api: Api) -> None:
    person = await api.person()
    token = await make(api, person, "account:read")
    assert await me(api, token) == 200
    asked: list[str] = []
    event.listen(api.facade.store._engine.sync_engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    for _ in range(5):
        assert await me(api, token) == 200
    assert [query for query in asked if "api_tokens" in query] == []


async def test_revocation_is_immediate_here(api: Api) -> None:
    person = await api.person()
    token = await make(api, person, "account:read")
    kept = await make(api, person, "account:read")
    assert await me(api, token) == await me(api, kept) == 200
    listed = (await api.get("/api/v1/me/tokens", token=person.token)).data
    path = f"/api/v1/me/tokens/{listed[1]['id']}"
    revoked = await api.request("DELETE", path, token=person.token)
    assert (revoked.status, revoked.data) == (200, {"message": "API token revoked."})
    assert sorted([await me(api, token), await me(api, kept)]) == [200, 401]
    assert (await api.request("DELETE", path, token=person.token)).status == 404


async def test_a_token_is_refused_in_every_answer_that_follows_its_revocation(api: Api) -> None:
    person = await api.person()
    token = await make(api, person, "account:read")
    (listed,) = (await api.get("/api/v1/me/tokens", token=person.token)).data
    over = asyncio.Event()

    async def use() -> list[tuple[bool, int]]:
        seen = []
        while not seen or not seen[-1][0]:
            after = over.is_set()
            seen.append((after, await me(api, token)))
        return seen

    users = [asyncio.create_task(use()) for _ in range(8)]
    for _ in range(3):
        assert await me(api, token) == 200
    assert (await api.request("DELETE", f"/api/v1/me/tokens/{listed['id']}", token=person.token)).status == 200
    over.set()
    for seen in await asyncio.gather(*users):
        assert [status for after, status in seen if after] == [401]


async def test_revocation_reaches_other_processes_within_a_second(
    api: Api, settings: Settings, serving: Serving
) -> None:
    person = await api.person()
    token = await make(api, person, "account:read")
    (listed,) = (await api.get("/api/v1/me/tokens", token=person.token)).data
    async with serving(settings) as other:
        assert await me(other, token) == 200
        await api.request("DELETE", f"/api/v1/me/tokens/{listed['id']}", token=person.token)
        async with asyncio.timeout(1):
            while await me(other, token) != 401:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("verb", "path", "needed"),
    [
        ("GET", "/api/v1/me", "account:read"),
        ("GET", "/api/v1/sessions", "sessions:read"),
        ("GET", "/api/v1/sessions/current", "sessions:read"),
        ("GET", f"/api/v1/sessions/{uuid4()}", "sessions:read"),
        ("POST", "/api/v1/sessions", "sessions:write"),
        ("POST", f"/api/v1/sessions/{uuid4()}/stop", "sessions:write"),
    ],
)
async def test_each_route_needs_its_scope(api: Api, verb: str, path: str, needed: str) -> None:
    person = await api.person(admin=True)
    all_others = await make(api, person, *(scope for scope in EVERY_SCOPE if scope != needed))
    refused = await api.request(verb, path, headers=bearing(all_others))
    assert refused.status == 403
    assert refused.json["detail"] == f"The API token lacks the scope {needed}."
    assert challenge(refused) == f'Bearer error="insufficient_scope", scope="{needed}"'
    alone = await make(api, person, needed)
    assert (await api.request(verb, path, headers=bearing(alone))).status in (200, 201, 404)


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("GET", "/api/v1/me/tokens", None),
        ("POST", "/api/v1/me/tokens", {"name": "another", "scopes": EVERY_SCOPE}),
        ("DELETE", f"/api/v1/me/tokens/{uuid4()}", None),
    ],
)
async def test_a_token_makes_lists_and_revokes_no_tokens(api: Api, verb: str, path: str, body: Any) -> None:
    person = await api.person(admin=True)
    token = await make(api, person, *EVERY_SCOPE)
    # A cookie beside it changes nothing: the token alone decides.
    for cookie in (None, person.token):
        answer = await api.request(verb, path, headers=bearing(token), token=cookie, json=body)
        assert (answer.status, answer.json["detail"]) == (403, "API tokens cannot be used here.")
        assert challenge(answer) == 'Bearer error="insufficient_scope"'


async def test_a_token_opens_no_session_host(api: Api, daemon: FakeDaemon) -> None:
    person = await api.person()
    token = await make(api, person, *USER_SCOPES)
    session = await daemon.put(make_session(person.user_id))
    while (await api.proxy(session.slug, person.token)).status != 200:  # noqa: ASYNC110  # the stream tells nobody
        await asyncio.sleep(0.01)
    assert (await api.proxy(session.slug, headers=bearing(token))).status == 401
    assert (await api.proxy(session.slug, token=token)).status == 401
    # Under a session's host there is no API, whatever a page there has got hold of.
    answer = await api.get("/api/v1/me", headers=bearing(token), host=f"s-{session.slug}.{SITE}")
    assert answer.status == 404


async def test_a_page_of_another_origin_changes_nothing_with_a_token(api: Api, daemon: FakeDaemon) -> None:
    person = await api.person()
    token = await make(api, person, *USER_SCOPES)
    for origin in ("https://evil.example", f"https://s-abcd2345.{SITE}", "null"):
        answer = await api.post("/api/v1/sessions", headers={**bearing(token), "Origin": origin}, json={})
        assert (answer.status, answer.json["detail"]) == (403, "Request origin is not allowed.")
    assert daemon.called("sessions.create") == []


@pytest.mark.parametrize(
    "where",
    [
        lambda token: {"path": f"/api/v1/me?access_token={token}"},
        lambda token: {"path": f"/api/v1/me?token={token}"},
        lambda token: {"token": token},
        lambda token: {"headers": {"Cookie": f"medforge_session={token.removeprefix('mft_')}"}},
        lambda token: {"headers": {"X-Api-Token": token}},
        lambda token: {"headers": {"Authorization": f"Basic {token}"}},
        lambda token: {"headers": {"Authorization": token}},
        lambda token: {"headers": {"Proxy-Authorization": f"Bearer {token}"}},
    ],
    ids=["access_token", "token", "cookie", "cookie without prefix", "header", "Basic", "bare", "proxy"],
)
async def test_a_token_anywhere_else_is_none(api: Api, where: Callable[[str], dict[str, Any]]) -> None:
    token = await make(api, await api.person(), "account:read")
    given = where(token)
    answer = await api.get(given.pop("path", "/api/v1/me"), **given)
    assert (answer.status, answer.json["detail"]) == (401, "Authentication required.")


async def test_the_spelling_of_the_scheme_does_not_matter(api: Api) -> None:
    token = await make(api, await api.person(), "account:read")
    for scheme in ("Bearer", "bearer", "BEARER", "Bearer  "):
        assert (await api.get("/api/v1/me", headers={"Authorization": f"{scheme} {token}"})).status == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer mft_",
        "Bearer mft_" + "x" * 42,
        "Bearer mft_" + "x" * 44,
        "Bearer MFT_" + "x" * 43,
        "Bearer " + "x" * 47,
        "Bearer mft_" + "x" * 43 + ", Basic eDp5",
        "bearer mft_" + "é" * 43,
        f"Bearer {new_api_token()}",
    ],
)
async def test_what_is_no_token_is_refused_whatever_the_cookie_says(api: Api, header: str) -> None:
    person = await api.person()
    for cookie in (None, person.token):
        answer = await api.get("/api/v1/me", headers={"Authorization": header}, token=cookie)
        assert (answer.status, answer.json["detail"]) == (401, "The API token is not valid.")
        assert challenge(answer) == 'Bearer error="invalid_token"'


async def test_two_tokens_are_none(api: Api) -> None:
    person = await api.person()
    token = await make(api, person, "account:read")
    for other in (f"Bearer {token}", f"Bearer {new_api_token()}", "Basic eDp5"):
        headers = [("Authorization", f"Bearer {token}"), ("Authorization", other)]
        assert (await api.get("/api/v1/me", headers=headers, token=person.token)).status == 401
        assert (await api.get("/api/v1/me", headers=headers[::-1], token=person.token)).status == 401


async def test_an_admins_token_is_an_admins_only_with_the_scope(api: Api, daemon: FakeDaemon) -> None:
    admin, other = await api.person(admin=True), await api.person()
    session = await daemon.put(make_session(other.user_id))
    path = f"/api/v1/sessions/{session.id}"
    plain = await make(api, admin, *USER_SCOPES)
    assert (await api.get(path, headers=bearing(plain))).status == 404
    assert (await api.post(f"{path}/stop", headers=bearing(plain))).status == 404
    assert daemon.called("sessions.stop") == []
    reading = await make(api, admin, *USER_SCOPES, "admin:read")
    assert (await api.get(path, headers=bearing(reading))).status == 200
    assert (await api.post(f"{path}/stop", headers=bearing(reading))).status == 404
    assert daemon.called("sessions.stop") == []
    writing = await make(api, admin, *USER_SCOPES, "admin:write")
    assert (await api.get(path, headers=bearing(writing))).status == 404
    assert (await api.post(f"{path}/stop", headers=bearing(writing))).status == 202


@pytest.mark.parametrize("scope", ["admin:read", "admin:write"])
async def test_who_is_no_admin_makes_no_admins_token(api: Api, scope: str) -> None:
    person = await api.person()
    wanted = {"name": "later", "scopes": ["account:read", scope]}
    answer = await api.post("/api/v1/me/tokens", token=person.token, json=wanted)
    assert (answer.status, answer.json["code"]) == (403, "admin_access_denied")
    assert await api.facade.api_tokens.of_user(person.user_id) == []


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"name": ""}, ["body", "name"]),
        ({"name": "x" * 101}, ["body", "name"]),
        ({"name": "   "}, ["body", "name"]),
        ({"name": "a\x1b[2Jb"}, ["body", "name"]),
        ({"name": "a\u202eb"}, ["body", "name"]),
        ({"scopes": []}, ["body", "scopes"]),
        ({"scopes": ["root"]}, ["body", "scopes", "0"]),
        ({"scopes": ["*"]}, ["body", "scopes", "0"]),
        ({"scopes": "account:read"}, ["body", "scopes"]),
        ({"expires_in_days": 0}, ["body", "expires_in_days"]),
        ({"expires_in_days": 367}, ["body", "expires_in_days"]),
        ({"expires_in_days": 1.5}, ["body", "expires_in_days"]),
        ({"user_id": str(uuid4())}, ["body", "user_id"]),
    ],
)
async def test_what_is_wrong_with_a_wish_is_told(api: Api, change: dict[str, Any], loc: list[str]) -> None:
    person = await api.person()
    wanted = {"name": "backup", "scopes": ["account:read"], **change}
    answer = await api.post("/api/v1/me/tokens", token=person.token, json=wanted)
    assert (answer.status, answer.json["errors"][0]["loc"]) == (422, loc)


async def test_a_token_of_another_user_is_nobodys_to_revoke(api: Api) -> None:
    one, two = await api.person(), await api.person()
    token = await make(api, one, "account:read")
    (listed,) = (await api.get("/api/v1/me/tokens", token=one.token)).data
    assert (await api.request("DELETE", f"/api/v1/me/tokens/{listed['id']}", token=two.token)).status == 404
    assert (await api.get("/api/v1/me/tokens", token=two.token)).data == []
    assert await me(api, token) == 200


async def test_of_many_made_at_once_there_are_never_more_than_one_may_have(api: Api) -> None:
    person = await api.person()
    wanted = {"name": "many", "scopes": ["account:read"]}
    answers = await asyncio.gather(
        *(api.post("/api/v1/me/tokens", token=person.token, json=wanted) for _ in range(MAX_TOKENS + 5))
    )
    assert sorted(answer.status for answer in answers) == [201] * MAX_TOKENS + [409] * 5
    refused = next(answer for answer in answers if answer.status == 409)
    assert refused.json["detail"] == "There are 50 API tokens already; revoke one first."


async def test_a_login_that_was_ended_elsewhere_makes_no_token_meanwhile(
    api: Api, settings: Settings, serving: Serving
) -> None:
    """The other process remembers the login for a moment: what it makes of that must not outlive it."""
    person = await api.person()
    async with serving(settings) as other:
        assert (await other.get("/api/v1/me", token=person.token)).status == 200
        async with api.facade.store.writing() as connection:
            # As another process does it, but without telling: this one goes on believing in the login.
            await connection.execute(text("DELETE FROM logins"))
        assert (await other.get("/api/v1/me", token=person.token)).status == 200
        wanted = {"name": "too late", "scopes": ["account:read"]}
        answer = await other.post("/api/v1/me/tokens", token=person.token, json=wanted)
        assert (answer.status, answer.json["detail"]) == (401, "Authentication required.")
        assert await other.facade.api_tokens.of_user(person.user_id) == []


async def test_nothing_secret_is_logged_or_told_again(api: Api) -> None:
    with capture_logs() as logs:
        person = await api.person()
        token = await make(api, person, "account:read", name="a private name")
        assert await me(api, token) == 200
        await api.get(f"/api/v1/me?token={token}", headers=bearing(token))
        await api.get("/api/v1/sessions", headers=bearing(token))
        await api.get(f"/api/v1/nowhere/{uuid4()}", headers=bearing(token))
        (listed,) = (await api.get("/api/v1/me/tokens", token=person.token)).data
        await api.request("DELETE", f"/api/v1/me/tokens/{listed['id']}", token=person.token)
        refused = await api.get("/api/v1/me", headers=bearing(token))
    told = repr(logs) + refused.body.decode() + repr(refused.headers)
    assert len(logs) >= 8
    assert "api_token.created" in told
    assert "api_token.revoked" in told
    for secret in (token, token.removeprefix("mft_"), PASSWORD, person.token, person.email, "a private name"):
        assert secret not in told
