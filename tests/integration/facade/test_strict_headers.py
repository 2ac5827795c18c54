"""Every answer of the facade keeps browsers strict: every page and route, every status that the framework makes itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec
import pytest

from facade.config import Settings
from facade.sessions.pages import DENIED, MISSING, STARTING, UNKNOWN, page_response
from medforged.contract.sessions import SessionStatus
from tests.fakes.daemon import FakeDaemon, make_session
from tests.host.caddy_site import REPOSITORY
from tests.integration.facade.conftest import SITE, Answer, Api, eventually

pytestmark = pytest.mark.integration

ONE_WORD = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# What a page that takes over somebody's browser would want from it.
DENIED_FEATURES = ("camera", "microphone", "geolocation", "display-capture", "payment", "usb", "serial", "midi")
PAGES = sorted("/" if path.name == "index.html" else f"/{path.stem}" for path in (REPOSITORY / "web").glob("*.html"))
# They carry an ETag, and are the same for everybody.
DOCUMENTS = ("/api/v1/openapi.json", "/docs")
ASSETS = sorted(f"/assets/{path.name}" for path in (REPOSITORY / "web" / "assets").iterdir())


def faults(headers: Mapping[str, str], *, page: bool) -> list[str]:
    """What is missing or too lax."""
    found = [f"{name}: {headers.get(name)}" for name, value in ONE_WORD.items() if headers.get(name) != value]
    policy = headers.get("Content-Security-Policy", "")
    rules = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    if rules.get("default-src") not in (("'self'", "'none'") if page else ("'none'",)):
        found.append(f"default-src: {policy}")
    found += [f"{name}: {policy}" for name in ("frame-ancestors", "base-uri") if rules.get(name) != "'none'"]
    if rules.get("form-action") not in ("'none'", "'self'"):
        found.append(f"form-action: {policy}")
    if any(word in policy for word in ("unsafe", "http:", "https:", "*")) or "data:" in rules.get("script-src", ""):
        found.append(f"too lax: {policy}")
    features = headers.get("Permissions-Policy", "")
    found += [f"{name} is not denied: {features}" for name in DENIED_FEATURES if f"{name}=()" not in features]
    if headers.get("Cache-Control") not in ("no-store", *(("no-cache",) if page else ())):
        found.append(f"Cache-Control: {headers.get('Cache-Control')}")
    if headers.get("Server") != "medforge":
        found.append(f"Server: {headers.get('Server')}")
    if "X-Request-ID" not in headers:
        found.append("no request id")
    return found


@pytest.fixture
async def whole(
    daemon: FakeDaemon,
    settings: Settings,
    serving: Callable[[Settings], contextlib.AbstractAsyncContextManager[Api]],
) -> AsyncIterator[Api]:
    """The facade with the web UI's files."""
    site = msgspec.structs.replace(settings.site, web_root=str(REPOSITORY / "web"))
    async with serving(msgspec.structs.replace(settings, site=site)) as made:
        await eventually(lambda: made.facade.registry.live)
        yield made


def routes(api: Api) -> list[tuple[str, str]]:
    """Every verb and path that the application answers."""
    return [(route.method, route.resource.canonical) for route in api.facade.app.router.routes() if route.resource]


async def test_every_route_and_page_whoever_asks(whole: Api) -> None:
    admin, user = await whole.person(admin=True), await whole.person()
    asked = routes(whole)
    assert {path for _, path in asked} >= {*PAGES, *ASSETS, "/api/v1/sessions/{id}", "/healthz"}
    seen = set()
    for verb, path in asked:
        page = path in PAGES or path in ASSETS
        for token in (None, user.token, admin.token):
            if path == "/api/v1/auth/logout" and token:
                continue
            answer = await whole.request(verb, path.replace("{id}", "x"), token=token)
            assert faults(answer.headers, page=page or path in DOCUMENTS) == [], (verb, path, answer.status)
            seen.add(answer.status)
    assert {200, 401, 404, 422} <= seen


async def test_every_status_that_is_no_routes_own(whole: Api) -> None:
    owner = await whole.person()
    etag = (await whole.get("/")).headers["ETag"]
    for expected, answer in (
        (404, await whole.get("/nowhere")),
        (404, await whole.get("/%2e%2e/etc/passwd")),
        (404, await whole.get("/", host="s-abcd2345.medforge.example.test")),
        (404, await whole.get("/", host="evil.test")),
        (405, await whole.request("DELETE", "/healthz")),
        (302, await whole.get("/login?next=https://evil.test/")),
        (304, await whole.get("/", headers={"If-None-Match": etag})),
        (403, await whole.post("/api/v1/auth/login", json={}, headers={"Origin": "https://evil.test"})),
        (413, await whole.post("/api/v1/auth/login", data=b"x" * 5000, headers={"Content-Type": "application/json"})),
        (415, await whole.post("/api/v1/auth/login", data=b"x", headers={"Content-Type": "text/plain"})),
        (417, await whole.post("/api/v1/auth/login", data=b"{}", headers={"Expect": "the impossible"})),
        (422, await whole.post("/api/v1/auth/login", json={})),
        (409, await whole.post("/api/v1/auth/signup", json={"email": owner.email, "password": "correct horse"})),
        (400, await _raw(whole, b"GET / HTTP/1.1\r\nHost: a\r\nHost : b\r\n\r\n")),
        (400, await _raw(whole, b"nonsense\r\n\r\n")),
        (
            400,
            await _raw(whole, b"GET / HTTP/1.1\r\nHost: " + SITE.encode() + b"\r\nX: " + b"x" * 80_000 + b"\r\n\r\n"),
        ),
    ):
        assert answer.status == expected
        assert faults(answer.headers, page=expected == 304) == [], expected


async def test_every_answer_under_a_sessions_host(whole: Api, daemon: FakeDaemon) -> None:
    owner, stranger = await whole.person(), await whole.person()
    browser = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    starting = await daemon.put(make_session(owner.user_id, status=SessionStatus.STARTING))
    await eventually(lambda: whole.facade.registry.by_slug(starting.slug) is not None)
    for expected, token in ((401, None), (403, stranger.token), (404, owner.token)):
        for headers in ({}, browser):
            answer = await whole.proxy(starting.slug, token, headers=headers)
            assert answer.status == (302 if expected == 401 and headers else expected)
            assert faults(answer.headers, page=False) == [], (expected, headers)


async def test_an_answer_that_only_caddy_reads_does_without(whole: Api, daemon: FakeDaemon) -> None:
    owner = await whole.person()
    session = await daemon.put(make_session(owner.user_id))
    await eventually(lambda: whole.facade.registry.by_slug(session.slug) is not None)
    answer = await whole.proxy(session.slug, owner.token)
    assert answer.status == 200
    assert faults(answer.headers, page=False) != []


@pytest.mark.parametrize("page", [STARTING, UNKNOWN, MISSING, DENIED])
def test_every_page_has_a_policy_of_its_own(page: object) -> None:
    answer = page_response(page, "https://medforge.example.test/", "https://s-abcd2345.medforge.example.test/")
    assert "style-src 'sha256-" in answer.headers["Content-Security-Policy"]
    assert answer.headers.get("Retry-After") == ("2" if page is UNKNOWN else None)


def test_what_is_lax_is_noticed() -> None:
    """The checks above can fail."""
    strict = {
        **ONE_WORD,
        "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Permissions-Policy": ", ".join(f"{name}=()" for name in DENIED_FEATURES),
        "Cache-Control": "no-store",
        "Server": "medforge",
        "X-Request-ID": "x",
    }
    assert faults(strict, page=False) == []
    for name in strict:
        assert faults({key: value for key, value in strict.items() if key != name}, page=False), name
    for policy in (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
        "default-src 'none'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "default-src 'none'; script-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ):
        assert faults({**strict, "Content-Security-Policy": policy}, page=False), policy


async def _raw(api: Api, sent: bytes) -> Answer:
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    writer.write(sent)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(first.split(" ")[1]), headers, b"")
