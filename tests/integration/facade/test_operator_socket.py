"""The operator socket: what operators do with accounts, how soon it holds, and what nobody is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec
import pytest
from structlog.testing import capture_logs

from facade.config import Settings
from medforged.client import DaemonError
from medforged.contract import operators
from medforged.contract.errors import ErrorCode
from medforged.contract.users import (
    ChangeUser,
    CreateUser,
    ListUsers,
    SetPassword,
    SignedOut,
    User,
    UserPage,
    UserRef,
    UserResult,
)
from tests.fakes.clock import SetClock
from tests.integration.facade.conftest import PASSWORD, Answer, Api

pytestmark = pytest.mark.integration

SECRET = "an operator's secret"
Serving = Callable[[Settings], contextlib.AbstractAsyncContextManager[Api]]


async def create(api: Api, email: str = "ada@example.org", **more: Any) -> User:
    wanted = CreateUser(email=email, password=SECRET, **more)
    return (await api.operators.call(operators.users_create, wanted)).user


async def listed(api: Api, **wanted: Any) -> UserPage:
    return await api.operators.call(operators.users_list, ListUsers(**wanted))


async def refused(call: Any) -> DaemonError:
    with pytest.raises(DaemonError) as caught:
        await call
    return caught.value


async def sign_in(api: Api, email: str, password: str = SECRET) -> Answer:
    return await api.post("/api/v1/auth/login", json={"email": email, "password": password})


async def me(api: Api, token: str) -> int:
    return (await api.get("/api/v1/me", token=token)).status


async def test_the_first_admin_is_made_here(api: Api) -> None:
    assert (await listed(api)).users == []
    made = await create(api, " Ada@Example.org ", is_admin=True, max_concurrent_sessions=3)
    assert (made.email, made.is_admin, made.is_disabled, made.max_concurrent_sessions) == (
        "ada@example.org",
        True,
        False,
        3,
    )
    entered = await sign_in(api, "ada@example.org")
    assert (entered.status, entered.data["user_id"]) == (200, str(made.id))
    assert (await api.get("/api/v1/admin/users", token=entered.cookie)).status == 200
    assert (await listed(api)).users == [made]


async def test_a_new_account_is_like_one_that_somebody_signs_up_for_unless_said(api: Api) -> None:
    made = await create(api)
    assert (made.is_admin, made.max_concurrent_sessions) == (False, 1)


async def test_accounts_are_listed_page_by_page(api: Api, clock: SetClock) -> None:
    made = []
    for number in range(5):
        made.append(await create(api, f"person{number}@example.org", is_admin=number == 0))
        if number != 2:
            clock.advance(seconds=1)
    seen: list[User] = []
    while True:
        last = seen[-1] if seen else None
        page = await listed(
            api, limit=2, before_created_at=last.created_at if last else None, before_id=last.id if last else None
        )
        seen += page.users
        if not page.has_more:
            break
    assert [user.created_at for user in seen] == sorted((user.created_at for user in made), reverse=True)
    assert {user.id for user in seen} == {user.id for user in made}
    assert len(seen) == 5
    assert (await listed(api, email="PERSON3")).users == [made[3]]
    assert (await listed(api, is_admin=True)).users == [made[0]]
    assert len((await listed(api, is_disabled=False)).users) == 5
    assert (await listed(api, is_disabled=True)).users == []


@pytest.mark.parametrize("named", ["id", "email", "spelling"])
async def test_an_account_is_named_by_its_id_or_its_address(api: Api, named: str) -> None:
    made = await create(api)
    user = {"id": str(made.id), "email": made.email, "spelling": " ADA@example.ORG"}[named]
    for call in (
        api.operators.call(operators.users_change, ChangeUser(user=user, is_admin=True)),
        api.operators.call(operators.users_set_password, SetPassword(user=user, password=SECRET)),
        api.operators.call(operators.users_sign_out, UserRef(user=user)),
    ):
        assert (await call).user.id == made.id


async def test_disabling_signs_out_at_once(api: Api) -> None:
    await create(api)
    token = (await sign_in(api, "ada@example.org")).cookie
    assert await me(api, token) == 200
    changed = await api.operators.call(
        operators.users_change, ChangeUser(user="ada@example.org", is_disabled=True, max_concurrent_sessions=0)
    )
    assert (changed.user.is_disabled, changed.user.max_concurrent_sessions) == (True, 0)
    assert await me(api, token) == 401
    assert (await sign_in(api, "ada@example.org")).status == 403


async def test_a_new_password_and_signing_out_end_everything_at_once(api: Api) -> None:
    await create(api)
    bystander = await api.person()

    async def signed_in() -> tuple[str, dict[str, str]]:
        token = (await sign_in(api, "ada@example.org")).cookie
        wanted = {"name": "x", "scopes": ["account:read"]}
        answer = await api.post("/api/v1/me/tokens", token=token, json=wanted)
        bearer = {"Authorization": f"Bearer {answer.data['token']}"}
        assert (await api.get("/api/v1/me", headers=bearer)).status == await me(api, token) == 200
        return token, bearer

    token, bearer = await signed_in()
    done = await api.operators.call(operators.users_sign_out, UserRef(user="ada@example.org"))
    assert (done.logins, done.api_tokens) == (1, 1)
    assert (await api.get("/api/v1/me", headers=bearer)).status == await me(api, token) == 401
    done = await api.operators.call(operators.users_sign_out, UserRef(user="ada@example.org"))
    assert (done.logins, done.api_tokens) == (0, 0)

    token, bearer = await signed_in()
    wanted = SetPassword(user="ada@example.org", password="quite another one")
    assert isinstance(await api.operators.call(operators.users_set_password, wanted), UserResult)
    assert (await api.get("/api/v1/me", headers=bearer)).status == await me(api, token) == 401
    assert (await sign_in(api, "ada@example.org")).status == 401
    assert (await sign_in(api, "ada@example.org", "quite another one")).status == 200
    assert await me(api, bystander.token) == 200


async def test_signing_out_reaches_other_processes_within_a_second(
    api: Api, settings: Settings, serving: Serving
) -> None:
    await create(api)
    token = (await sign_in(api, "ada@example.org")).cookie
    async with serving(settings) as other:
        assert await me(other, token) == 200
        assert isinstance(
            await api.operators.call(operators.users_sign_out, UserRef(user="ada@example.org")), SignedOut
        )
        async with asyncio.timeout(1):
            while await me(other, token) != 401:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.02)


async def test_the_last_admin_stays_whoever_asks(api: Api) -> None:
    await create(api, is_admin=True)
    for change in ({"is_admin": False}, {"is_disabled": True}):
        error = await refused(api.operators.call(operators.users_change, ChangeUser(user="ada@example.org", **change)))
        assert error.code is ErrorCode.LAST_ADMIN
        assert "make another one first" in error.message
    await create(api, "bob@example.org", is_admin=True)
    calls = [
        api.operators.call(operators.users_change, ChangeUser(user=user, is_admin=False))
        for user in ("ada@example.org", "bob@example.org")
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, UserResult) for result in results) == 1
    assert [result.code for result in results if isinstance(result, DaemonError)] == [ErrorCode.LAST_ADMIN]


async def test_of_many_accounts_of_one_address_made_at_once_one_is_made(api: Api) -> None:
    signup = api.post("/api/v1/auth/signup", json={"email": "ada@example.org", "password": PASSWORD})
    results = await asyncio.gather(*(create(api) for _ in range(5)), signup, return_exceptions=True)
    answer = results.pop()
    assert isinstance(answer, Answer)
    made = sum(isinstance(result, User) for result in results) + (answer.status == 201)
    assert (made, answer.status in (201, 409)) == (1, True)
    assert {result.code for result in results if isinstance(result, DaemonError)} == {ErrorCode.EMAIL_TAKEN}


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        (operators.users_change, ChangeUser(user="eve@example.org"), ErrorCode.USER_NOT_FOUND),
        (operators.users_change, ChangeUser(user=str(uuid4())), ErrorCode.USER_NOT_FOUND),
        (operators.users_sign_out, UserRef(user="eve@example.org"), ErrorCode.USER_NOT_FOUND),
        (operators.users_sign_out, UserRef(user="eve"), ErrorCode.BAD_REQUEST),
        (operators.users_sign_out, UserRef(user="eve@"), ErrorCode.BAD_REQUEST),
        (operators.users_set_password, SetPassword(user=str(uuid4()), password=SECRET), ErrorCode.USER_NOT_FOUND),
        (operators.users_set_password, SetPassword(user="eve@example.org", password="short"), ErrorCode.BAD_REQUEST),
        (operators.users_create, CreateUser(email="eve@example.org", password="short"), ErrorCode.BAD_REQUEST),
        (operators.users_create, CreateUser(email="eve", password=SECRET), ErrorCode.BAD_REQUEST),
        (operators.users_list, ListUsers(before_id=uuid4()), ErrorCode.BAD_REQUEST),
    ],
)
async def test_refusals_have_their_codes(api: Api, method: Any, params: Any, code: ErrorCode) -> None:
    error = await refused(api.operators.call(method, params))
    assert error.code is code, error.message
    assert error.message
    assert (await listed(api)).users == []


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("users.create", b"{", 400, "bad_request"),
        ("users.create", b'{"email": "a@example.org", "password": 1}', 400, "bad_request"),
        ("users.create", b'{"email": "a@example.org", "password": "' + b"x" * 17_000 + b'"}', 413, "too_large"),
        ("users.change", b'{"user": "a@example.org", "password_hash": "x"}', 400, "bad_request"),
        ("users.list", b'{"limit": 501}', 400, "bad_request"),
        ("sessions.list", b"{}", 404, "unknown_method"),
        ("daemon.status", b"{}", 404, "unknown_method"),
        ("../users.list", b"{}", 404, "unknown_method"),
    ],
)
async def test_what_is_malformed_is_refused(api: Api, path: str, body: bytes, status: int, code: str) -> None:
    connector = aiohttp.UnixConnector(str(api.operators._socket))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.post(f"http://facade/v1/{path}", data=body) as answer,
    ):
        told = msgspec.json.decode(await answer.read())
        assert (answer.status, told["code"]) == (status, code)
        assert told["correlation_id"]


async def test_the_public_socket_knows_nothing_of_it(api: Api) -> None:
    admin = await api.person(admin=True)
    for path in ("/v1/users.list", "/v1/users.create"):
        assert (await api.post(path, token=admin.token, json={})).status == 404


async def test_nothing_secret_is_logged_or_told(api: Api) -> None:
    with capture_logs() as logs:
        made = await create(api)
        wanted = SetPassword(user=made.email, password="another secret")
        told = [repr(await api.operators.call(operators.users_set_password, wanted)), repr(wanted)]
        errors = [
            await refused(create(api)),
            await refused(
                api.operators.call(operators.users_create, CreateUser(email="b@example.org", password="2short"))
            ),
            await refused(
                api.operators.call(operators.users_set_password, SetPassword(user="no@example.org", password=SECRET))
            ),
        ]
    called = [entry for entry in logs if entry["event"] == "rpc.call"]
    assert [entry["method"] for entry in called] == [
        "users.create",
        "users.set_password",
        "users.create",
        "users.create",
        "users.set_password",
    ]
    assert all(entry["peer_pid"] and entry["peer_uid"] is not None for entry in called)
    written = repr(logs) + "".join(told) + repr([(error.message, error.details) for error in errors])
    for secret in (SECRET, "another secret", "2short", "$argon2"):
        assert secret not in written
    assert made.email not in repr(logs)
    assert isinstance(made.id, UUID)
