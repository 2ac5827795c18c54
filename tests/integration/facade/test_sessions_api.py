"""Creating, reading, listing and stopping sessions over the public API."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from medforged.contract.errors import ErrorCode
from medforged.contract.sessions import SessionStatus, Tier
from tests.fakes.daemon import PACK, FakeDaemon, aged, make_session
from tests.integration.facade.conftest import SITE, Api, eventually

pytestmark = pytest.mark.integration
# Nothing here depends on what keeps the accounts.
DATABASES = ("sqlite",)

FIELDS = [
    "id",
    "user_id",
    "tier",
    "pack_id",
    "status",
    "container_id",
    "gpu_id",
    "slug",
    "workspace_zfs",
    "created_at",
    "started_at",
    "stopped_at",
    "error_message",
]
SESSIONS = "/api/v1/sessions"


@pytest.mark.parametrize("body", [None, {}, {"tier": "public"}, {"pack_id": str(PACK.id)}, {"pack_id": None}])
async def test_create(api: Api, daemon: FakeDaemon, body: dict[str, Any] | None) -> None:
    person = await api.person()
    answer = (
        await api.post(SESSIONS, token=person.token, json=body)
        if body is not None
        else await api.post(SESSIONS, token=person.token)
    )
    assert answer.status == 201
    assert answer.data["message"] == "Session started."
    session = answer.data["session"]
    assert list(session) == FIELDS
    assert (session["user_id"], session["status"], session["tier"]) == (str(person.user_id), "running", "public")
    assert datetime.fromisoformat(session["created_at"]).tzinfo == UTC
    assert session["created_at"].endswith("Z")
    (call,) = daemon.called("sessions.create")
    assert call.params.user_id == person.user_id
    assert call.params.max_concurrent_sessions == 1
    assert call.params.tier is Tier.PUBLIC


async def test_the_first_page_after_a_create_is_let_in(api: Api, daemon: FakeDaemon) -> None:
    """The watch stream tells of the new session too, but later than the answer; here, never."""
    daemon.muted = True
    person = await api.person()
    answer = await api.post(SESSIONS, token=person.token)
    slug = answer.data["session"]["slug"]
    proxied = await api.proxy(slug, person.token)
    assert (proxied.status, proxied.headers["X-Upstream"]) == (200, f"mf-session-{slug}:8080")


async def test_a_stop_shuts_the_door_at_once(api: Api, daemon: FakeDaemon) -> None:
    daemon.muted = True
    person = await api.person()
    session = (await api.post(SESSIONS, token=person.token)).data["session"]
    assert (await api.proxy(session["slug"], person.token)).status == 200
    answer = await api.post(f"{SESSIONS}/{session['id']}/stop", token=person.token)
    assert (answer.status, answer.data) == (202, {"message": "Session stop requested."})
    assert (await api.proxy(session["slug"], person.token)).status == 404


async def test_stop_is_idempotent_and_says_when_there_is_nothing_to_stop(api: Api, daemon: FakeDaemon) -> None:
    person = await api.person()
    session = (await api.post(SESSIONS, token=person.token, json={})).data["session"]
    stop = f"{SESSIONS}/{session['id']}/stop"
    for body in (None, {}):
        answer = (
            await api.post(stop, token=person.token, json=body) if body else await api.post(stop, token=person.token)
        )
        assert (answer.status, answer.data["message"]) == (202, "Session stop requested.")
    await daemon.end(UUID(session["id"]))
    answer = await api.post(stop, token=person.token)
    assert (answer.status, answer.data) == (202, {"message": "Session already terminal."})


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        (ErrorCode.SESSION_LIMIT_REACHED, 409, "Concurrent session limit reached"),
        (ErrorCode.NO_GPU_AVAILABLE, 409, "No GPUs available"),
        (ErrorCode.STOPPED_WHILE_STARTING, 409, "The session was stopped while it was starting."),
        (ErrorCode.TIER_UNAVAILABLE, 501, "The private tier is not available."),
        (ErrorCode.CREATE_FAILED, 500, "Failed to start session runtime."),
        (ErrorCode.HOST_FAILED, 500, "Failed to start session runtime."),
        (ErrorCode.SHUTTING_DOWN, 503, "The session service is restarting; try again in a few seconds."),
        (ErrorCode.ACCESS_DENIED, 500, "An unexpected error occurred."),
    ],
)
async def test_create_refused(api: Api, daemon: FakeDaemon, code: ErrorCode, status: int, detail: str) -> None:
    person = await api.person()
    daemon.refuse("sessions.create", code, "cannot start mf-session-x: /dev/nvidia0 is gone")
    answer = await api.post(SESSIONS, token=person.token, json={})
    assert (answer.status, answer.json["detail"]) == (status, detail)
    assert b"nvidia" not in answer.body


async def test_limits_are_the_accounts_own_and_the_daemons_to_hold(api: Api, daemon: FakeDaemon) -> None:
    people = [await api.person() for _ in range(3)]
    assert (await api.post(SESSIONS, token=people[0].token)).status == 201
    answer = await api.post(SESSIONS, token=people[0].token)
    assert (answer.status, answer.json["detail"]) == (409, "Concurrent session limit reached")
    assert (await api.post(SESSIONS, token=people[1].token)).status == 201
    answer = await api.post(SESSIONS, token=people[2].token)
    assert (answer.status, answer.json["detail"]) == (409, "No GPUs available")


async def test_the_private_tier_is_refused_by_the_daemon(api: Api) -> None:
    person = await api.person()
    assert (await api.post(SESSIONS, token=person.token, json={"tier": "private"})).status == 501


async def test_an_unknown_pack(api: Api) -> None:
    person = await api.person()
    answer = await api.post(SESSIONS, token=person.token, json={"pack_id": str(uuid4())})
    assert (answer.status, answer.json["detail"]) == (404, "Pack not found.")


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"tier": "secret"}, ["body", "tier"]),
        ({"tier": None}, ["body", "tier"]),
        ({"pack_id": "default"}, ["body", "pack_id"]),
        ({"user_id": str(uuid4())}, ["body", "user_id"]),
        ({"max_concurrent_sessions": 9}, ["body", "max_concurrent_sessions"]),
        ([], ["body"]),
    ],
)
async def test_create_takes_nothing_else(api: Api, daemon: FakeDaemon, body: Any, loc: list[str]) -> None:
    person = await api.person()
    answer = await api.post(SESSIONS, token=person.token, json=body)
    assert answer.status == 422
    assert [error["loc"] for error in answer.json["errors"]] == [loc]
    assert daemon.called("sessions.create") == []


async def test_the_daemon_away(api: Api, daemon: FakeDaemon) -> None:
    person = await api.person()
    session = (await api.post(SESSIONS, token=person.token)).data["session"]
    await daemon.go_away()
    await eventually(lambda: not api.facade.registry.live)
    for verb, path in (
        ("POST", SESSIONS),
        ("GET", SESSIONS),
        ("GET", f"{SESSIONS}/current"),
        ("GET", f"{SESSIONS}/{session['id']}"),
        ("POST", f"{SESSIONS}/{session['id']}/stop"),
    ):
        answer = await api.request(verb, path, token=person.token)
        assert answer.status == 503, path
        assert answer.json["detail"] == "The session service does not answer; try again in a few seconds."
        assert answer.headers["Retry-After"] == "2"
        assert b"sock" not in answer.body


async def test_current_is_the_newest_active_session(api: Api, daemon: FakeDaemon) -> None:
    person = await api.person()
    assert (await api.get(f"{SESSIONS}/current", token=person.token)).data == {"session": None}
    older = await daemon.put(aged(make_session(person.user_id, status=SessionStatus.STARTING), 60))
    newer = await daemon.put(make_session(person.user_id))
    await daemon.put(make_session())
    await eventually(lambda: len(api.facade.registry._by_id) == 3)
    assert (await api.get(f"{SESSIONS}/current", token=person.token)).data["session"]["id"] == str(newer.id)
    await daemon.end(newer.id)
    await eventually(lambda: len(api.facade.registry._by_id) == 2)
    answer = await api.get(f"{SESSIONS}/current", token=person.token)
    assert (answer.data["session"]["id"], list(answer.data["session"])) == (str(older.id), FIELDS)
    assert daemon.called("sessions.list") == []


async def test_get_is_for_the_owner_and_admins(api: Api, daemon: FakeDaemon) -> None:
    owner, stranger, admin = await api.person(), await api.person(), await api.person(admin=True)
    session = (await api.post(SESSIONS, token=owner.token)).data["session"]
    path = f"{SESSIONS}/{session['id']}"
    for person in (owner, admin):
        answer = await api.get(path, token=person.token)
        assert (answer.status, answer.data) == (200, {"session": session})
    foreign = await api.get(path, token=stranger.token)
    missing = await api.get(f"{SESSIONS}/{uuid4()}", token=stranger.token)
    for answer in (foreign, missing):
        told = answer.json
        told.pop("request_id"), told.pop("instance")
        assert told == {
            "type": "https://medforge.dev/problems/http/404",
            "title": "Not Found",
            "status": 404,
            "detail": "Session not found.",
            "code": "404",
        }


@pytest.mark.parametrize("known", [True, False], ids=["in the registry", "not in the registry"])
async def test_stop_is_for_the_owner_and_admins(api: Api, daemon: FakeDaemon, known: bool) -> None:
    owner, stranger, admin = await api.person(), await api.person(), await api.person(admin=True)
    session = (await api.post(SESSIONS, token=owner.token)).data["session"]
    if not known:
        await daemon.end(UUID(session["id"]))
        await eventually(lambda: api.facade.registry.by_id(UUID(session["id"])) is None)
    path = f"{SESSIONS}/{session['id']}/stop"
    assert (await api.post(path, token=stranger.token)).status == 404
    assert daemon.called("sessions.stop") == []
    assert (await api.post(path, token=admin.token)).status == 202
    assert (await api.post(f"{SESSIONS}/{uuid4()}/stop", token=admin.token)).status == 404


@pytest.mark.parametrize("text", ["x", "1", "%00", "a" * 40, "00000000000000000000000000000000"])
async def test_an_id_that_is_none(api: Api, daemon: FakeDaemon, text: str) -> None:
    person = await api.person()
    for verb, path in (("GET", f"{SESSIONS}/{text}"), ("POST", f"{SESSIONS}/{text}/stop")):
        answer = await api.request(verb, path, token=person.token)
        assert answer.status == 422
        assert [error["loc"] for error in answer.json["errors"]] == [["path", "id"]]
    assert not daemon.called("sessions.get")


async def test_pages_cover_the_history_once(api: Api, daemon: FakeDaemon) -> None:
    person = await api.person()
    made = []
    for age in range(7):
        made.append(await daemon.put(aged(make_session(person.user_id, status=SessionStatus.STOPPED), age // 2)))
        await daemon.put(make_session(status=SessionStatus.STOPPED))
    wanted = [str(one.id) for one in sorted(made, key=lambda one: (one.created_at, one.id), reverse=True)]
    found: list[str] = []
    query = "limit=3"
    for page in range(3):
        answer = await api.get(f"{SESSIONS}?{query}", token=person.token)
        meta = answer.json["meta"]
        assert (answer.status, meta["limit"], meta["has_more"]) == (200, 3, page < 2)
        assert (meta["next_cursor"] is None) == (page == 2)
        found += [session["id"] for session in answer.data]
        assert all(list(session) == FIELDS for session in answer.data)
        query = f"limit=3&cursor={meta['next_cursor']}"
    assert found == wanted


async def test_listing_filters_by_status(api: Api, daemon: FakeDaemon) -> None:
    person = await api.person()
    for status in SessionStatus:
        await daemon.put(make_session(person.user_id, status=status))
    for query, wanted in (
        ("", set(SessionStatus)),
        ("?status=running", {"running"}),
        ("?status=stopped&status=error", {"stopped", "error"}),
        ("?status=stopped,error", {"stopped", "error"}),
    ):
        answer = await api.get(SESSIONS + query, token=person.token)
        assert {session["status"] for session in answer.data} == wanted
    assert (await api.get(f"{SESSIONS}?status=alive", token=person.token)).status == 422


@pytest.mark.parametrize(
    ("query", "type_"),
    [
        ("limit=0", "pagination/invalid-limit"),
        ("limit=501", "pagination/invalid-limit"),
        ("limit=x", "pagination/invalid-limit"),
        ("cursor=x", "pagination/invalid-cursor"),
        ("cursor=", "pagination/invalid-cursor"),
    ],
)
async def test_a_bad_page(api: Api, query: str, type_: str) -> None:
    person = await api.person()
    answer = await api.get(f"{SESSIONS}?{query}", token=person.token)
    assert (answer.status, answer.json["type"]) == (400, f"https://medforge.dev/problems/{type_}")


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/api/v1/me"),
        ("POST", SESSIONS),
        ("GET", SESSIONS),
        ("GET", f"{SESSIONS}/current"),
        ("GET", f"{SESSIONS}/{UUID(int=1)}"),
        ("POST", f"{SESSIONS}/{UUID(int=1)}/stop"),
    ],
)
async def test_nothing_without_signing_in(api: Api, daemon: FakeDaemon, verb: str, path: str) -> None:
    for token in (None, "x" * 43):
        answer = await api.request(verb, path, token=token)
        assert (answer.status, answer.json["detail"]) == (401, "Authentication required.")
    assert not [call for call in daemon.calls if call.method.startswith("sessions.")]


@pytest.mark.parametrize("origin", ["https://evil.test", "null", f"https://s-abcd2345.{SITE}"])
@pytest.mark.parametrize(
    "path",
    ["/api/v1/auth/signup", "/api/v1/auth/login", "/api/v1/auth/logout", SESSIONS, f"{SESSIONS}/{UUID(int=1)}/stop"],
)
async def test_foreign_origins_change_nothing(api: Api, daemon: FakeDaemon, path: str, origin: str) -> None:
    person = await api.person()
    answer = await api.post(path, token=person.token, headers={"Origin": origin}, json={})
    assert (answer.status, answer.json["detail"]) == (403, "Request origin is not allowed.")
    assert answer.json["type"] == "https://medforge.dev/problems/http/403"
    assert (await api.get("/api/v1/me", token=person.token)).status == 200
    assert not [call for call in daemon.calls if call.method.startswith("sessions.")]


async def test_our_own_origins_may(api: Api) -> None:
    for origin in (f"https://{SITE}", f"https://api.{SITE}"):
        person = await api.person()
        answer = await api.post(
            SESSIONS, token=person.token, headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        )
        assert answer.status == 201
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_the_api_is_not_found_under_a_sessions_host(api: Api) -> None:
    person = await api.person()
    for verb, path in (("GET", "/api/v1/me"), ("GET", SESSIONS), ("POST", "/api/v1/auth/logout"), ("GET", "/healthz")):
        answer = await api.request(verb, path, token=person.token, host=f"s-abcd2345.{SITE}")
        assert answer.status == 404
    assert (await api.get("/api/v1/me", token=person.token)).status == 200


async def test_a_create_that_takes_its_time_blocks_nobody(api: Api, daemon: FakeDaemon) -> None:
    person = await api.person()
    gate = daemon.hold("sessions.create")
    creating = asyncio.create_task(api.post(SESSIONS, token=person.token))
    await eventually(lambda: len(daemon.called("sessions.create")) == 1)
    assert (await api.get("/api/v1/me", token=person.token)).status == 200
    gate.set()
    assert (await creating).status == 201


async def test_the_request_id_goes_into_the_daemons_journal(api: Api, daemon: FakeDaemon) -> None:
    person = await api.person()
    named = {"X-Request-ID": "trace-1.2_3"}
    answer = await api.post(SESSIONS, token=person.token, headers=named)
    assert answer.headers["X-Request-ID"] == answer.json["meta"]["request_id"] == "trace-1.2_3"
    session_id = answer.data["session"]["id"]
    await api.get(f"{SESSIONS}/{session_id}", token=person.token, headers=named)
    await api.get(SESSIONS, token=person.token, headers=named)
    await api.post(f"{SESSIONS}/{session_id}/stop", token=person.token, headers=named)
    calls = [call for call in daemon.calls if call.method.startswith("sessions.")]
    assert [call.correlation_id for call in calls] == ["trace-1.2_3"] * 4
