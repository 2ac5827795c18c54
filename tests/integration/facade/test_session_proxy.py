"""Who may enter a session's host, as Caddy asks it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import event

from medforged.contract.sessions import Session, SessionStatus
from tests.fakes.daemon import FakeDaemon, make_session
from tests.integration.facade.conftest import SITE, Api, Person, eventually

pytestmark = pytest.mark.integration

PATH = "/api/v1/auth/session-proxy"
BROWSER = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "none",
    "X-Forwarded-Method": "GET",
    "X-Forwarded-Proto": "https",
}


async def known(api: Api, daemon: FakeDaemon, person: Person | None = None, **changes: object) -> Session:
    """A session that the registry has heard of."""
    session = await daemon.put(make_session(person.user_id if person else uuid4(), **changes))
    await eventually(lambda: api.facade.registry.by_slug(session.slug) is not None)
    return session


async def test_the_owner_is_let_in_with_headers_only(api: Api, daemon: FakeDaemon) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner)
    answer = await api.proxy(session.slug, owner.token)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["X-Upstream"] == f"mf-session-{session.slug}:8080"
    assert answer.headers["Content-Length"] == "0"
    assert "Content-Type" not in answer.headers
    assert "Set-Cookie" not in answer.headers


async def test_an_admin_is_let_in(api: Api, daemon: FakeDaemon) -> None:
    admin = await api.person(admin=True)
    session = await known(api, daemon)
    assert (await api.proxy(session.slug, admin.token)).status == 200


async def test_a_stranger_is_not(api: Api, daemon: FakeDaemon) -> None:
    stranger = await api.person()
    for status in (SessionStatus.STARTING, SessionStatus.RUNNING, SessionStatus.STOPPING):
        session = await known(api, daemon, status=status)
        answer = await api.proxy(session.slug, stranger.token)
        assert (answer.status, answer.json["detail"]) == (403, "Session access denied.")
        assert "X-Upstream" not in answer.headers


@pytest.mark.parametrize("token", [None, "", "x" * 43])
async def test_nobody_is_not_whether_there_is_a_session_or_not(api: Api, daemon: FakeDaemon, token: str | None) -> None:
    session = await known(api, daemon)
    for slug in (session.slug, "abcd2345"):
        answer = await api.proxy(slug, token)
        assert (answer.status, answer.json["detail"]) == (401, "Authentication required.")


@pytest.mark.parametrize("status", [SessionStatus.STARTING, SessionStatus.STOPPING])
async def test_only_a_running_session_can_be_entered(api: Api, daemon: FakeDaemon, status: SessionStatus) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner, status=status)
    answer = await api.proxy(session.slug, owner.token)
    assert (answer.status, answer.json["detail"]) == (404, "Session not found.")


async def test_an_ended_or_unknown_session_is_not_found(api: Api, daemon: FakeDaemon) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner)
    await daemon.end(session.id)
    await eventually(lambda: api.facade.registry.by_slug(session.slug) is None)
    for slug in (session.slug, "abcd2345"):
        assert (await api.proxy(slug, owner.token)).status == 404


async def test_only_the_host_header_names_the_session(api: Api, daemon: FakeDaemon) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner)
    right = f"s-{session.slug}.{SITE}"
    for host, status in (
        (right, 200),
        (f"{right}:443", 200),
        (f"{right}:8443", 200),
        (right.upper(), 404),
        (f"{right}.", 404),
        (f"{right}.evil.test", 404),
        (f"x{right}", 404),
        (SITE, 404),
        (f"api.{SITE}", 404),
    ):
        answer = await api.get(PATH, token=owner.token, host=host)
        assert answer.status == status, host
    spoofed = {
        "X-Forwarded-Host": right,
        "X-Original-Host": right,
        "Forwarded": f"host={right}",
        "X-Upstream": "evil:1",
    }
    for host in (SITE, f"s-abcd2345.{SITE}"):
        answer = await api.get(PATH, token=owner.token, host=host, headers=spoofed)
        assert (answer.status, "X-Upstream" in answer.headers) == (404, False)
    answer = await api.proxy(
        session.slug, owner.token, headers={"X-Forwarded-Host": "evil.test", "X-Upstream": "evil:1"}
    )
    assert answer.headers.getall("X-Upstream") == [f"mf-session-{session.slug}:8080"]


async def test_two_host_headers_name_nothing(api: Api, daemon: FakeDaemon) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner)
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    host = f"s-{session.slug}.{SITE}"
    writer.write(
        f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\nCookie: medforge_session={owner.token}\r\n\r\n".encode()
    )
    status = await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert status.split()[1] in (b"400", b"404")


async def test_it_asks_neither_database_nor_daemon(api: Api, daemon: FakeDaemon) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner)
    assert (await api.proxy(session.slug, owner.token)).status == 200
    queries: list[str] = []
    event.listen(api.facade.store._engine.sync_engine, "before_cursor_execute", lambda *args: queries.append(args[2]))
    for _ in range(50):
        assert (await api.proxy(session.slug, owner.token)).status == 200
    assert not [query for query in queries if "users" in query or "token_digest" in query]
    assert not [call for call in daemon.calls if call.method != "daemon.health"]


async def test_logout_shuts_every_door_at_once(api: Api, daemon: FakeDaemon) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner)
    assert (await api.proxy(session.slug, owner.token)).status == 200
    await api.post("/api/v1/auth/logout", token=owner.token)
    assert (await api.proxy(session.slug, owner.token)).status == 401


async def test_running_sessions_stay_open_while_the_daemon_is_away(api: Api, daemon: FakeDaemon) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner)
    await daemon.go_away()
    await eventually(lambda: not api.facade.registry.live)
    assert (await api.proxy(session.slug, owner.token)).status == 200
    daemon.sessions.clear()
    daemon.forget()
    await daemon.come_back()
    await eventually(lambda: api.facade.registry.live)
    assert (await api.proxy(session.slug, owner.token)).status == 404


async def test_a_tossed_cookie_does_not_change_who_enters(api: Api, daemon: FakeDaemon) -> None:
    owner, tenant = await api.person(), await api.person()
    session = await known(api, daemon, owner)
    both = {"Cookie": f"medforge_session={tenant.token}; medforge_session={owner.token}"}
    assert (await api.proxy(session.slug, headers=both)).status == 401
    junk = {"Cookie": f"medforge_session={'j' * 43}; medforge_session={owner.token}"}
    assert (await api.proxy(session.slug, headers=junk)).status == 200


async def test_a_browser_is_sent_to_sign_in_and_back(api: Api, daemon: FakeDaemon) -> None:
    session = await known(api, daemon)
    asked = {**BROWSER, "X-Forwarded-Uri": "/?folder=/workspace&x=%20"}
    answer = await api.proxy(session.slug, headers=asked)
    assert (answer.status, answer.body) == (302, b"")
    location = urlsplit(answer.headers["Location"])
    assert (location.scheme, location.netloc, location.path) == ("https", SITE, "/login")
    assert parse_qs(location.query) == {"next": [f"https://s-{session.slug}.{SITE}/?folder=/workspace&x=%20"]}
    assert answer.headers["Cache-Control"] == "no-store"
    assert "X-Upstream" not in answer.headers


@pytest.mark.parametrize("uri", ["https://evil.test/", "//evil.test/", "@evil.test/", "\\evil.test", "", "x"])
async def test_the_way_back_is_always_the_same_session(api: Api, uri: str) -> None:
    answer = await api.proxy("abcd2345", headers={**BROWSER, "X-Forwarded-Uri": uri, "X-Forwarded-Host": "evil.test"})
    (back,) = parse_qs(urlsplit(answer.headers["Location"]).query)["next"]
    assert urlsplit(back).netloc == f"s-abcd2345.{SITE}"


async def test_a_browser_without_fetch_metadata_is_sent_too(api: Api) -> None:
    answer = await api.proxy("abcd2345", headers={"Accept": "text/html,*/*"})
    assert answer.status == 302


@pytest.mark.parametrize(
    "changed",
    [
        {"Accept": "*/*"},
        {"Accept": "application/json"},
        {"Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Mode": "websocket"},
        {"Sec-Fetch-Dest": "iframe"},
        {"X-Forwarded-Method": "POST"},
    ],
)
async def test_everything_else_gets_json(api: Api, changed: dict[str, str]) -> None:
    answer = await api.proxy("abcd2345", headers={**BROWSER, **changed})
    assert (answer.status, answer.headers["Content-Type"]) == (401, "application/problem+json")


async def test_a_browser_that_is_signed_in_but_may_not_gets_no_redirect(api: Api, daemon: FakeDaemon) -> None:
    stranger = await api.person()
    session = await known(api, daemon)
    assert (await api.proxy(session.slug, stranger.token, headers=BROWSER)).status == 403
    assert (await api.proxy("abcd2345", stranger.token, headers=BROWSER)).status == 404


@pytest.mark.parametrize(
    ("status", "title", "again"),
    [
        (SessionStatus.STARTING, "Your session is starting…", True),
        (SessionStatus.STOPPING, "There is no session here", False),
    ],
)
@pytest.mark.parametrize("who", ["owner", "admin"])
async def test_a_browser_is_shown_a_page_while_there_is_no_ide(
    api: Api, daemon: FakeDaemon, who: str, status: SessionStatus, title: str, *, again: bool
) -> None:
    owner, admin = await api.person(), await api.person(admin=True)
    session = await known(api, daemon, owner, status=status)
    token = {"owner": owner, "admin": admin}[who].token
    page = await api.proxy(session.slug, token, headers=BROWSER)
    assert (page.status, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert f"<title>{title} · MedForge</title>" in page.body.decode()
    here = f"https://s-{session.slug}.{SITE}/"
    assert (f'<meta http-equiv="refresh" content="2; url={here}">' in page.body.decode()) is again
    assert "X-Upstream" not in page.headers
    program = await api.proxy(session.slug, token)
    assert (program.status, program.json["detail"]) == (404, "Session not found.")
    assert program.headers["Content-Type"] == "application/problem+json"


async def test_who_may_not_enter_does_not_learn_that_a_session_is_starting(api: Api, daemon: FakeDaemon) -> None:
    stranger = await api.person()
    starting = await known(api, daemon, status=SessionStatus.STARTING)
    running = await known(api, daemon)
    told = [await api.proxy(session.slug, stranger.token, headers=BROWSER) for session in (starting, running)]
    assert [page.status for page in told] == [403, 403]
    assert told[0].body == told[1].body
    assert "This session is somebody else" in told[0].body.decode()


async def test_a_page_loads_nothing_and_runs_nothing(api: Api, daemon: FakeDaemon) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner, status=SessionStatus.STARTING)
    page = await api.proxy(session.slug, owner.token, headers=BROWSER)
    text = page.body.decode()
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert "<script" not in text
    assert re.findall(r' (?:href|src|action)="([^"]*)"', text)[1:] == [f"https://{SITE}/"]
    assert re.findall(r' (?:href|src|action)="([^"]*)"', text)[0].startswith("data:image/svg+xml,")
    assert page.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("uri", "here"),
    [
        ("/?folder=/a&b='\"><script>", "/?folder=/a&amp;b=&#x27;&quot;&gt;&lt;script&gt;"),
        ("/a\\b", "/a%5Cb"),
        ("//evil.test/", "//evil.test/"),
        ("@evil.test", "/"),
        ("https://evil.test/", "/"),
    ],
)
async def test_a_page_asks_again_for_the_same_sessions_page_and_no_other(
    api: Api, daemon: FakeDaemon, uri: str, here: str
) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner, status=SessionStatus.STARTING)
    page = await api.proxy(session.slug, owner.token, headers={**BROWSER, "X-Forwarded-Uri": uri})
    assert f'content="2; url=https://s-{session.slug}.{SITE}{here}">' in page.body.decode()
    assert "<script" not in page.body.decode()


async def test_the_page_gives_way_to_the_ide(api: Api, daemon: FakeDaemon) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner, status=SessionStatus.STARTING)
    assert (await api.proxy(session.slug, owner.token, headers=BROWSER)).status == 404
    await daemon.put(msgspec.structs.replace(session, status=SessionStatus.RUNNING))
    await eventually(lambda: _status(api, session) is SessionStatus.RUNNING)
    assert (await api.proxy(session.slug, owner.token, headers=BROWSER)).status == 200


def _status(api: Api, session: Session) -> SessionStatus | None:
    known = api.facade.registry.by_slug(session.slug)
    return known.status if known else None


async def test_a_websockets_handshake_leaves_the_connection_usable(api: Api, daemon: FakeDaemon) -> None:
    """Caddy may keep Upgrade in what it asks, and uses the connection again."""
    owner = await api.person()
    session = await known(api, daemon, owner)
    asked = (
        f"GET {PATH} HTTP/1.1\r\nHost: s-{session.slug}.{SITE}\r\nCookie: medforge_session={owner.token}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    for _ in range(3):
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"X-Upstream: mf-session-" in head
    writer.close()
    await writer.wait_closed()


async def test_head_is_answered_like_get(api: Api, daemon: FakeDaemon) -> None:
    owner = await api.person()
    session = await known(api, daemon, owner)
    answer = await api.request("HEAD", PATH, host=f"s-{session.slug}.{SITE}", token=owner.token)
    assert (answer.status, answer.headers["X-Upstream"]) == (200, f"mf-session-{session.slug}:8080")
