"""What may pass between a browser and a session: no platform cookie, no forged identity, in neither direction."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.host.caddy_site import CaddySite, Wire, answer
from tests.host.caddy_site import Message as Request

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.caddy_fixtures"]

FORGED = [
    "X-Upstream",
    "x-upstream",
    "X-UPSTREAM",
    "X_Upstream",
    "x_upstream",
    "X-Upstream_",
    "X_UPSTREAM",
    "X-Upstream-Host",
    "X-Medforge-User",
    "X-Medforge-Upstream",
    "X_Medforge_User",
    "X-User-Id",
    "x-user-id",
    "X-User_Id",
    "X_User_Id",
    "X-User-Email",
    "X-Auth-Request-User",
    "X-Authenticated-User",
    "X-Remote-User",
    "Remote-User",
    "Remote_User",
    "Remote-Groups",
    "X-Forwarded-User",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X_Forwarded_For",
    "Forwarded",
    "X-Real-IP",
    "X_Real_IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Client-IP",
    "True-Client-IP",
]


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("where", ["session", "platform"])
def test_what_a_client_claims_about_itself_is_dropped(site: CaddySite, name: str, where: str) -> None:
    host = site.host if where == "session" else site.platform

    assert site.get("/", (name, "forged"), ("X-Kept", "1"), host=host).status == 200

    everyone = site.facade.seen + site.session.seen
    assert len(everyone) == (2 if where == "session" else 1)
    for arrived in everyone:
        assert arrived.values(name) == []
        assert not any(value == "forged" for _, value in arrived.headers)
        assert arrived.value("X-Kept") == "1"


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"])
@pytest.mark.parametrize("where", ["session", "platform"])
def test_forwarding_headers_say_what_caddy_saw(site: CaddySite, name: str, where: str) -> None:
    host = site.host if where == "session" else site.platform

    site.get("/", (name, "203.0.113.9"), (name, "evil.example"), ("Connection", name), host=host)

    for arrived in site.facade.seen + site.session.seen:
        assert arrived.value("X-Forwarded-Host") == host
        assert arrived.value("X-Forwarded-Proto") == "https"
        seen_address = arrived.value("X-Forwarded-For")
        assert seen_address is not None
        assert seen_address.startswith("172.28.")


@pytest.mark.parametrize("name", ["X-Forwarded-Method", "X-Forwarded-Uri"])
def test_the_question_names_the_real_request(site: CaddySite, name: str) -> None:
    site.get("/real?x", (name, "forged"), ("Connection", name))

    [asked] = site.asked()
    assert asked.value(name) == {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/real?x"}[name]


def test_the_session_is_not_told_what_the_facade_said(site: CaddySite) -> None:
    def say_more(request: Request, wire: Wire) -> None:
        slug = site.slug
        answer(200, ("X-Upstream", f"mf-session-{slug}:8080"), ("X-User-Id", "7"), ("Set-Cookie", "a=b"))(request, wire)

    site.facade.script = say_more

    got = site.get()

    [arrived] = site.session.seen
    assert arrived.values("X-Upstream") + arrived.values("X-User-Id") + arrived.values("Set-Cookie") == []
    assert got.values("X-Upstream") + got.values("X-User-Id") + got.values("Set-Cookie") == []


COOKIES = [
    (["medforge_session=T"], []),
    (["medforge_session=T; a=1"], ["a=1"]),
    (["a=1; medforge_session=T"], ["a=1"]),
    (["a=1; medforge_session=T; b=2"], ["a=1; b=2"]),
    (["a=1;medforge_session=T;b=2"], ["a=1;b=2"]),
    (["a=1;  medforge_session=T;  b=2"], ["a=1;  b=2"]),
    (["medforge_session=T; medforge_session=T2"], []),
    (["medforge_session=T; a=1; medforge_session=T2; b=2; medforge_session=T3"], ["a=1; b=2"]),
    (["a=1", "medforge_session=T", "b=2"], ["a=1", "", "b=2"]),
    (["medforge_session=T", "medforge_session=T2"], []),
    (["medforge_session"], []),
    (["medforge_session="], []),
    (["a=1; medforge_session"], ["a=1"]),
    ([" medforge_session=T"], []),
    (["a=1; medforge_session =T"], ["a=1"]),
    (["a=1;\tmedforge_session=T"], ["a=1"]),
    (["a=1; MEDFORGE_SESSION=T"], ["a=1"]),
    (['a="; medforge_session=T; b="'], ['a="; b="']),
    (['medforge_session="T"; a=1'], ["a=1"]),
    (["medforge_session=T=U==; a=1"], ["a=1"]),
    ([";;medforge_session=T;;a=1"], ["a=1"]),
    (["a=1; xmedforge_session=K; medforge_sessions=K"], ["a=1; xmedforge_session=K; medforge_sessions=K"]),
    (["a=medforge_session"], ["a=medforge_session"]),
    (["a=1, medforge_session=T; b=2"], ["b=2"]),
    (["a=medforge_session=T; b=2"], ["b=2"]),
    (["b=2; a=1,MEDFORGE_SESSION =T"], ["b=2"]),
    (["__Host-medforge_device=T; b=2"], ["b=2"]),
    (["b=2; medforge_device=T"], ["b=2"]),
    (["a=1; b=2"], ["a=1; b=2"]),
    (["a={http.request.uuid}; b=$1"], ["a={http.request.uuid}; b=$1"]),
    ([""], []),
]


@pytest.mark.parametrize(("sent", "expected"), COOKIES)
def test_the_platform_cookie_never_reaches_a_session_and_others_do(
    site: CaddySite, sent: list[str], expected: list[str]
) -> None:
    site.get("/", *(("Cookie", value) for value in sent))

    [arrived] = site.session.seen
    assert arrived.values("cookie") == expected
    assert not any("T" in value for value in arrived.values("cookie"))
    [asked] = site.asked()
    assert asked.values("Cookie") == [value.strip() for value in sent]


def test_a_cookie_split_over_http2_fields_does_not_reach_a_session(site: CaddySite) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "curl is needed"
    where = site.host.partition(":")[0]
    cookies = ("--header", "Cookie: a=1", "--header", "Cookie: medforge_session=T", "--header", "Cookie: b=2")
    subprocess.run(
        [
            *(curl, "--silent", "--fail", "--http2", "--cacert", str(site.authority)),
            *("--resolve", f"{where}:{site.port}:127.0.0.1", *cookies, f"https://{site.host}/"),
        ],
        capture_output=True,
        timeout=30,
        check=True,
    )

    [arrived] = site.session.seen
    assert arrived.values("Cookie") == ["a=1; b=2"]


REFUSED = "medforge_refused=; Max-Age=0"
SET_COOKIES = [
    ("a=1", "a=1"),
    ("a=1; Path=/; Secure; HttpOnly; SameSite=Lax", "a=1; Path=/; Secure; HttpOnly; SameSite=Lax"),
    ("a=1; Expires=Thu, 01 Jan 2032 00:00:00 GMT; Max-Age=5", "a=1; Expires=Thu, 01 Jan 2032 00:00:00 GMT; Max-Age=5"),
    ("a=domain", "a=domain"),
    ("domain=1; Path=/", "domain=1; Path=/"),
    ("a=1; Path=/medforge_session", "a=1; Path=/medforge_session"),
    ("medforge_session=evil", REFUSED),
    ("medforge_session=evil; Path=/; Domain=.medforge.localhost", REFUSED),
    ("medforge_session=; Max-Age=0", REFUSED),
    ("medforge_session", REFUSED),
    ("  medforge_session=evil", REFUSED),
    ("\tmedforge_session=evil", REFUSED),
    ("medforge_session =evil", REFUSED),
    ("=medforge_session=evil", REFUSED),
    ("= medforge_session=evil", REFUSED),
    ("==medforge_session=evil", REFUSED),
    (" = =medforge_session", REFUSED),
    ("MedForge_Session=evil", REFUSED),
    ('"medforge_session"=evil', REFUSED),
    ("a, medforge_session=evil", REFUSED),
    ("a=b medforge_session=evil", REFUSED),
    ("a=1; Domain=medforge.localhost", "a=1"),
    ("a=1; domain=.medforge.localhost; Path=/", "a=1; Path=/"),
    ("a=1;DOMAIN=medforge.localhost;Path=/", "a=1;Path=/"),
    ("a=1; Domain =medforge.localhost; Path=/", "a=1; Path=/"),
    ("a=1;\tDomain=x; Domain=y; Path=/", "a=1; Path=/"),
    ("a=1; Domain; Path=/", "a=1; Path=/"),
    ("a=1; Domain=", "a=1"),
    ("a=1; Domain=x=y; Secure", "a=1; Secure"),
    ("a=$1{http.request.uuid}; Path=/", "a=$1{http.request.uuid}; Path=/"),
]


@pytest.mark.parametrize(("sent", "expected"), SET_COOKIES)
def test_a_session_sets_cookies_for_itself_alone(site: CaddySite, sent: str, expected: str) -> None:
    site.session.script = answer(200, ("Set-Cookie", "first=1"), ("Set-Cookie", sent), ("set-cookie", "last=1"))

    got = site.get()

    assert got.values("Set-Cookie") == ["first=1", expected.strip(), "last=1"]


def test_a_session_cannot_set_cookies_in_an_informational_answer(site: CaddySite) -> None:
    def hint(request: Request, wire: Wire) -> None:
        wire.send(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nSet-Cookie: medforge_session=evil; Domain=medforge.localhost\r\n\r\n"
        )
        answer(200, body=b"done")(request, wire)

    site.session.script = hint
    wire = site.connect()
    wire.send(f"GET / HTTP/1.1\r\nHost: {site.host}\r\nConnection: close\r\n\r\n".encode())

    heads = [wire.head()]
    while heads[-1] is not None and heads[-1].status < 200:
        heads.append(wire.head())
    final = heads[-1]
    assert final is not None
    assert (final.status, wire.body(final, to_end=True)) == (200, b"done")
    for head in heads:
        assert head is not None
        assert "evil" not in str(head.headers)
        assert "omain" not in "".join(head.values("Set-Cookie"))


def test_a_session_cannot_sign_its_visitor_out(site: CaddySite) -> None:
    site.session.script = answer(200, ("Clear-Site-Data", '"cookies"'), ("X-Upstream", "x"))

    got = site.get()

    assert got.values("Clear-Site-Data") + got.values("X-Upstream") == []


def test_the_facade_does_set_the_platform_cookie(site: CaddySite) -> None:
    cookie = "medforge_session=token; Domain=.medforge.localhost; Path=/; Secure; HttpOnly; SameSite=Lax"
    site.facade.script = answer(200, ("Set-Cookie", cookie))

    assert site.get("/api/v1/auth/login", host=site.platform, method="POST").values("Set-Cookie") == [cookie]


OWN = "https://HOST"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Origin", "https://s-aaaaaaaa.medforge.localhost:PORT")], 403),
        ([("Origin", "https://s-aaaaaaaa.medforge.localhost")], 403),
        ([("Origin", "http://S-AAAAAAAA.MEDFORGE.localhost:PORT")], 403),
        ([("Origin", OWN)], 200),
        ([("Origin", "https://medforge.localhost:PORT")], 200),
        ([("Origin", "null")], 200),
        ([("Origin", "https://example.org")], 200),
        ([("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Dest", "empty")], 200),
        ([("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")], 200),
        ([("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")], 200),
        ([("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")], 403),
        ([("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")], 403),
        ([("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "websocket"), ("Sec-Fetch-Dest", "websocket")], 403),
    ],
)
def test_one_sessions_page_may_not_use_its_visitors_rights_in_another(
    site: CaddySite, headers: list[tuple[str, str]], status: int
) -> None:
    sent = [(name, value.replace("HOST", site.host).replace("PORT", str(site.port))) for name, value in headers]

    assert site.get("/", *sent).status == status
    assert len(site.session.seen) == (1 if status == 200 else 0)


@pytest.mark.parametrize(
    ("origin", "site_of_request", "status"),
    [
        (OWN, "same-origin", 200),
        (None, None, 200),
        ("https://medforge.localhost:PORT", "same-site", 403),
        ("https://medforge.localhost:PORT", None, 403),
        ("https://blog.localhost", "same-site", 403),
        ("https://example.org", "cross-site", 403),
        ("http://HOST", None, 403),
        ("https://HOST.example.org", None, 403),
        ("null", "cross-site", 403),
        ("null", None, 403),
        ("null", "same-origin", 200),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "post"])
def test_no_other_page_may_change_anything_in_a_session(
    site: CaddySite, method: str, origin: str | None, site_of_request: str | None, status: int
) -> None:
    headers = [("Origin", origin), ("Sec-Fetch-Site", site_of_request), ("Sec-Fetch-Dest", "document")]
    sent = [
        (name, value.replace("HOST", site.host).replace("PORT", str(site.port))) for name, value in headers if value
    ]

    assert site.get("/", *sent, method=method, body=b"x").status == status
    assert len(site.session.seen) == (1 if status == 200 else 0)


@pytest.mark.parametrize("origin", ["https://medforge.localhost:PORT", "https://example.org", "null", "http://HOST"])
@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c"])
def test_no_other_page_may_open_a_websocket_to_a_session(site: CaddySite, origin: str, upgrade: str) -> None:
    sent = origin.replace("HOST", site.host).replace("PORT", str(site.port))
    upgraded = (("Upgrade", upgrade), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", "eA=="))

    assert site.get("/", ("Origin", sent), *upgraded).status == 403
    assert site.session.seen == []


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("Bearer mft_TOKEN", False),
        ("bearer  mft_TOKEN", False),
        ("mft_TOKEN", False),
        ('Token token="mft_TOKEN"', False),
        ("Bearer MFT_TOKEN", False),
        ("Bearer tenants-own", True),
        ("Basic YTpi", True),
        ("Bearer xmft_TOKEN", True),
    ],
)
def test_a_platform_token_does_not_reach_a_session_and_its_own_do(site: CaddySite, sent: str, *, arrives: bool) -> None:
    value = sent.replace("TOKEN", "k" * 43)

    assert site.get("/", ("Authorization", value)).status == 200

    [arrived] = site.session.seen
    assert arrived.values("Authorization") == ([value] if arrives else [])
    [asked] = site.asked()
    assert asked.values("Authorization") == []


def test_a_platform_token_beside_another_value_takes_both_away(site: CaddySite) -> None:
    site.get("/", ("Authorization", "Basic YTpi"), ("Authorization", "Bearer mft_" + "k" * 43))

    [arrived] = site.session.seen
    assert arrived.values("Authorization") == []


def test_a_token_does_reach_the_facade_at_the_platforms_own_names(site: CaddySite) -> None:
    site.facade.script = answer(200)

    site.get("/api/v1/me", ("Authorization", "Bearer mft_" + "k" * 43), host=site.platform)

    [arrived] = site.facade.seen
    assert arrived.value("Authorization") == "Bearer mft_" + "k" * 43
