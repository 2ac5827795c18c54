"""The wildcard site asks the facade about every request and fails closed."""

from __future__ import annotations

import json
import time

import pytest

from tests.host.caddy_site import CaddySite, Message, Wire, admit, answer, random_slug

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.caddy_fixtures"]

JSON = ("Content-Type", "application/problem+json")


def break_off(_request: Message, wire: Wire) -> None:
    wire.close()


def test_an_admitted_request_reaches_the_session_and_its_answer_comes_back(site: CaddySite) -> None:
    site.session.script = answer(201, ("X-From", "session"), ("Content-Type", "text/x-test"), body=b"made")

    got = site.get("/a/b?c=d", method="PUT", body=b"payload")

    assert (got.status, got.body) == (201, b"made")
    assert (got.value("X-From"), got.value("Content-Type")) == ("session", "text/x-test")
    [arrived] = site.session.seen
    assert (arrived.method, arrived.target, arrived.body) == ("PUT", "/a/b?c=d", b"payload")
    assert arrived.value("Host") == site.host


def test_the_facade_is_asked_with_the_original_host_and_cookie_and_without_a_body(site: CaddySite) -> None:
    site.get("/a?b=c", ("Cookie", "medforge_session=token"), ("Accept", "text/html"), method="POST", body=b"payload")

    [asked] = site.facade.seen
    assert (asked.start, asked.body) == ("GET /api/v1/auth/session-proxy HTTP/1.1", b"")
    assert asked.value("Host") == site.host
    assert asked.value("Cookie") == "medforge_session=token"
    assert asked.value("Accept") == "text/html"
    assert asked.value("X-Forwarded-Host") == site.host
    assert asked.value("X-Forwarded-Proto") == "https"
    assert asked.value("X-Forwarded-Method") == "POST"
    assert asked.value("X-Forwarded-Uri") == "/a?b=c"
    assert asked.value("Content-Length") in (None, "0")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "x"),
        ("Range", "bytes=0-1"),
        ("If-None-Match", "*"),
        ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Content-Type", "application/json"),
        ("Content-Encoding", "gzip"),
        ("TE", "trailers"),
        ("Trailer", "X-User-Id"),
        ("Expect", "100-continue"),
    ],
)
def test_what_could_change_the_meaning_of_the_question_is_left_out(site: CaddySite, name: str, value: str) -> None:
    site.get("/", (name, value))

    [asked] = site.asked()
    assert asked.values(name) == []


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (401, [JSON], b'{"type":"https://medforge.dev/problems/http/401"}'),
        (403, [JSON, ("X-Request-ID", "r-1")], b'{"detail":"Session access denied."}'),
        (404, [JSON], b"{}"),
        (302, [("Location", "https://medforge.localhost/login?next=https%3A%2F%2Fs-a%2F")], b""),
        (303, [("Location", "https://medforge.localhost/login"), ("Set-Cookie", "medforge_session=; Max-Age=0")], b""),
        (429, [("Retry-After", "3")], b"{}"),
        (500, [], b"{}"),
        (503, [("Retry-After", "1")], b"{}"),
        (401, [], b""),
        (404, [], b""),
    ],
)
def test_a_refusal_is_passed_on_as_it_is(
    site: CaddySite, status: int, headers: list[tuple[str, str]], body: bytes
) -> None:
    site.facade.script = answer(status, *headers, body=body)

    got = site.get()

    assert (got.status, got.body) == (status, body)
    for name, value in headers:
        assert got.value(name) == value
    assert site.session.seen == []


def test_the_same_connection_is_asked_about_again_for_every_request(site: CaddySite) -> None:
    wire = site.connect()
    statuses = []
    for script in (admit, answer(404), admit):
        site.facade.script = script
        wire.send(f"GET / HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode())
        head = wire.head()
        assert head is not None
        wire.body(head, to_end=False)
        statuses.append(head.status)

    assert statuses == [200, 404, 200]
    assert len(site.asked()) == 3


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["{http.reverse_proxy.header.X-Upstream}"],
        ["{re.slug.1}"],
        ["mf-session-{re.slug.1}:8080"],
        ["mf-session-SLUG"],
        ["mf-session-SLUG:80"],
        ["mf-session-SLUG:8080/"],
        ["http://mf-session-SLUG:8080"],
        ["MF-SESSION-SLUG:8080"],
        ["mf-session-SLUG:8080, mf-session-OTHER:8080"],
        ["mf-session-OTHER:8080"],
        ["127.0.0.1:2019"],
        ["unix//run/medforge-facade/facade.sock"],
        ["mf-session-SLUG:8080", "mf-session-SLUG:8080"],
    ],
)
def test_an_upstream_that_is_not_the_hosts_own_is_a_502(site: CaddySite, values: list[str]) -> None:
    slug, other = site.slugs
    named = [value.replace("SLUG", slug).replace("OTHER", other) for value in values]
    site.facade.script = answer(200, *(("X-Upstream", value) for value in named))

    got = site.get()

    assert got.status == 502
    assert site.session.seen == []


def test_a_clients_own_upstream_does_not_stand_in_for_a_missing_one(site: CaddySite) -> None:
    site.facade.script = answer(200)

    got = site.get("/", ("X-Upstream", f"mf-session-{site.slug}:8080"))

    assert got.status == 502
    assert site.session.seen == []


def test_each_session_is_reached_by_its_own_name(site: CaddySite) -> None:
    for slug in site.slugs:
        assert site.get("/", host=site.host_of(slug)).status == 200

    assert [seen.value("Host") for seen in site.session.seen] == [site.host_of(slug) for slug in site.slugs]


def test_a_session_whose_container_is_gone_is_a_502_in_plain_words(site: CaddySite) -> None:
    began = time.monotonic()
    got = site.get("/", host=site.host_of(random_slug()))

    assert 1.5 < time.monotonic() - began < 5, "a name that is only just being made is waited for, but not for long"
    assert got.status == 502
    assert (got.value("Content-Type") or "").startswith("text/plain")
    assert got.value("Cache-Control") == "no-store"
    assert b"cannot be reached" in got.body


def test_a_facade_that_breaks_off_is_a_502(site: CaddySite) -> None:
    site.facade.script = break_off

    assert site.get().status == 502
    assert site.session.seen == []


@pytest.mark.parametrize(
    "label",
    [
        "other",
        "sx",
        "s-",
        "s-abcdefg",
        "s-abcdefghi",
        "s-abcdefg1",
        "s-abcdef-h",
        "s-ABCDEFGH",
        "xs-abcdefgh",
        "S-abcdefgh",
    ],
)
def test_a_name_that_no_session_can_have_is_a_404_nobody_is_asked_about(site: CaddySite, label: str) -> None:
    got = site.get("/", host=f"{label}.medforge.localhost:{site.port}")

    assert (got.status, got.body) == (404, b"Not found")
    assert site.facade.seen == []
    assert site.session.seen == []


@pytest.mark.parametrize(
    "host", ["localhost", "example.org", "127.0.0.1", "medforge.example.org", "a.b.medforge.localhost"]
)
def test_an_unknown_host_is_a_404_even_under_a_known_server_name(site: CaddySite, host: str) -> None:
    wire = site.connect(site.platform)
    wire.send(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    head = wire.head()

    assert head is not None
    assert (head.status, wire.body(head, to_end=True)) == (404, b"Not found")
    assert site.facade.seen == []


@pytest.mark.parametrize("name", ["medforge", "api.medforge"])
def test_the_platforms_names_lead_to_the_facade(site: CaddySite, name: str) -> None:
    site.facade.script = answer(200, ("Content-Type", "application/json"), body=b'{"data":{}}')
    host = f"{name}.localhost:{site.port}"

    got = site.get("/api/v1/me?x=1", ("Cookie", "medforge_session=token"), host=host)

    assert (got.status, got.body) == (200, b'{"data":{}}')
    [arrived] = site.facade.seen
    assert arrived.target == "/api/v1/me?x=1"
    assert arrived.value("Host") == host
    assert arrived.value("Cookie") == "medforge_session=token"


def test_a_facade_that_is_away_is_told_to_api_clients_in_their_form(site: CaddySite) -> None:
    site.facade.script = break_off

    got = site.get("/api/v1/sessions", host=site.platform, method="POST", body=b"{}")

    assert (got.status, got.value("Content-Type")) == (502, "application/problem+json")
    assert got.value("Cache-Control") == "no-store"
    problem = json.loads(got.body)
    assert problem["status"] == 502
    assert problem["type"] == "https://medforge.dev/problems/http/502"
    assert problem["title"] == "Bad Gateway"
