"""Whatever goes wrong before, beside or inside a handler, the answer has the API's form and gives nothing away."""

from __future__ import annotations

import asyncio
import gzip
import re
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from tests.fakes.daemon import FakeDaemon
from tests.integration.facade.conftest import SITE, Answer, Api

pytestmark = pytest.mark.integration
# Nothing here depends on what keeps the accounts.
DATABASES = ("sqlite",)

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOGIN = "/api/v1/auth/login"


def check_problem(answer: Answer, status: int, instance: str | None = None) -> dict[str, Any]:
    """The form that every error has."""
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    told: dict[str, Any] = answer.json
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= set(told)
    assert told["status"] == status
    assert told["request_id"] == answer.headers["X-Request-ID"]
    assert told["detail"]
    if instance is not None:
        assert told["instance"] == instance
    text = answer.body.decode()
    for leak in ("Traceback", ".py", "aiohttp", "Python", "/work", "/tmp"):
        assert leak not in text
        assert leak not in repr(answer.headers)
    return told


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/api/v1",
        "/api/v1/",
        "/api/v1/nope",
        "/api/v1/me/",
        "/api/v2/me",
        "//api/v1/me",
        "/%00",
        "/..%2f..%2fetc/passwd",
    ],
)
@pytest.mark.parametrize("verb", ["GET", "POST", "DELETE"])
async def test_unknown_path(api: Api, verb: str, path: str) -> None:
    told = check_problem(await api.request(verb, path), 404)
    assert told["type"] == "https://medforge.dev/problems/http/404"
    assert (told["title"], told["code"]) == ("Not Found", "404")


@pytest.mark.parametrize(
    ("verb", "path", "allow"),
    [
        ("DELETE", "/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("GET", LOGIN, {"OPTIONS", "POST"}),
        ("PUT", "/api/v1/sessions", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("PURGE", "/api/v1/me", {"GET", "HEAD", "OPTIONS", "PATCH"}),
    ],
)
async def test_wrong_method(api: Api, verb: str, path: str, allow: set[str]) -> None:
    answer = await api.request(verb, path, headers={"Origin": f"https://{SITE}"})
    check_problem(answer, 405, path)
    assert set(answer.headers["Allow"].split(",")) == allow
    assert not [name for name in answer.headers if name.startswith("Access-Control-")]


@pytest.mark.parametrize(("path", "allow"), [(LOGIN, "OPTIONS,POST"), ("/api/v1/sessions", "GET,HEAD,OPTIONS,POST")])
async def test_options(api: Api, path: str, allow: str) -> None:
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await api.request("OPTIONS", path, headers=preflight)
    assert (answer.status, answer.body, answer.headers["Allow"]) == (204, b"", allow)
    assert not [name for name in answer.headers if name.startswith("Access-Control-")]


async def test_head_has_no_body(api: Api) -> None:
    for path, status in (("/healthz", 200), ("/nope", 404), ("/api/v1/me", 401)):
        answer = await api.request("HEAD", path)
        assert (answer.status, answer.body) == (status, b"")
        assert answer.headers["X-Request-ID"]


@pytest.mark.parametrize("body", [b"{", b"", b"\xff", b"null", b"[" * 3000])
async def test_malformed_json(api: Api, body: bytes) -> None:
    told = check_problem(await api.post(LOGIN, data=body, headers={"Content-Type": "application/json"}), 422, LOGIN)
    assert told["type"] == "https://medforge.dev/problems/validation/request"
    assert told["code"] == "request_validation_failed"
    assert told["errors"][0]["loc"][0] == "body"


@pytest.mark.parametrize("text", ["\\ud800", "\\udfff\\ud800", "\\u0000", "\\ud83d\\ude00", "x" * 1000, "\xed\xa0\x80"])
@pytest.mark.parametrize("name", ["email", "password"])
@pytest.mark.parametrize("path", [LOGIN, "/api/v1/auth/signup"])
async def test_text_that_is_no_text(api: Api, path: str, name: str, text: str) -> None:
    fields = {"email": "a@example.org", "password": "correct horse", name: text + "@example.org"}
    body = "{" + ",".join(f'"{key}":"{value}"' for key, value in fields.items()) + "}"
    answer = await api.post(path, data=body.encode("latin-1"), headers={"Content-Type": "application/json"})
    assert answer.status in (201, 401, 422), answer.body
    if answer.status != 201:
        check_problem(answer, answer.status, path)


async def test_wrong_content_type(api: Api) -> None:
    check_problem(await api.post(LOGIN, data={"email": "a@example.org", "password": "x" * 8}), 415, LOGIN)
    check_problem(await api.post(LOGIN, data=b"{}", headers={"Content-Type": "text/plain"}), 415, LOGIN)


async def test_compressed_bodies_do_not_grow(api: Api) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await api.post(LOGIN, data=bomb[:4000], headers=headers)
    check_problem(answer, 415, LOGIN)


async def test_too_large(api: Api) -> None:
    body = msgspec.json.encode({"email": "a" * 5000, "password": "x"})
    check_problem(await api.post(LOGIN, data=body, headers={"Content-Type": "application/json"}), 413, LOGIN)


async def test_too_large_without_saying_so(api: Api) -> None:
    async def chunks() -> Any:
        for _ in range(10):
            yield b" " * 1000

    check_problem(await api.post(LOGIN, data=chunks(), headers={"Content-Type": "application/json"}), 413, LOGIN)


@pytest.mark.parametrize("path", [LOGIN, "/nope"])
async def test_an_unknown_expectation(api: Api, path: str) -> None:
    answer = await raw(
        api, f"POST {path} HTTP/1.1\r\nHost: {SITE}\r\nExpect: tea\r\nContent-Length: 0\r\n\r\n".encode()
    )
    check_problem(answer, 417)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: tea\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_what_is_not_http(api: Api, request_bytes: bytes) -> None:
    answer = await raw(api, request_bytes)
    told = check_problem(answer, 400)
    assert told["detail"] == "The request is not valid HTTP."
    assert answer.headers["Server"] == "medforge"


async def test_a_defect_is_told_to_the_log_alone(api: Api) -> None:
    async def broken(_tokens: object) -> None:
        raise RuntimeError("cannot open /var/lib/secret")

    api.facade.logins.identify = broken  # type: ignore[method-assign, assignment]  # a defect, planted
    with capture_logs() as logs:
        answer = await api.get("/api/v1/me", headers={"X-Forwarded-For": "192.0.2.1"})
    told = check_problem(answer, 500, "/api/v1/me")
    assert told["detail"] == "An unexpected error occurred."
    assert "secret" not in answer.body.decode()
    assert [entry["event"] for entry in logs] == ["http.failed", "http.request"]


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 128, "4db6-bf5a"])
async def test_a_well_formed_request_id_is_kept(api: Api, given: str) -> None:
    for path in ("/healthz", "/nope", "/api/v1/me"):
        assert (await api.get(path, headers={"X-Request-ID": given})).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a/b", "é", "<script>", "a;b", "a\tb"])
async def test_another_one_is_replaced(api: Api, given: str) -> None:
    answer = await api.get("/nope", headers={"X-Request-ID": given})
    assert UUID.fullmatch(answer.headers["X-Request-ID"])
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]


async def test_the_envelope_of_success(api: Api) -> None:
    person = await api.person()
    answer = await api.get("/api/v1/me", token=person.token)
    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json) == ["data", "meta"]
    meta = answer.json["meta"]
    assert list(meta) == ["request_id", "api_version", "timestamp", "limit", "next_cursor", "has_more"]
    assert (meta["api_version"], meta["limit"], meta["next_cursor"], meta["has_more"]) == ("v1.0", None, None, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", meta["timestamp"])


async def test_nothing_is_cached_or_sniffed(api: Api) -> None:
    for path in ("/healthz", "/api/v1/me", "/nope"):
        headers = (await api.get(path)).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


async def test_a_caller_that_hangs_up_does_not_stop_a_create(api: Api, daemon: FakeDaemon) -> None:
    person = await api.person()
    gate = daemon.hold("sessions.create")
    _, writer = await asyncio.open_unix_connection(str(api.socket))
    writer.write(
        f"POST /api/v1/sessions HTTP/1.1\r\nHost: {SITE}\r\nCookie: medforge_session={person.token}\r\n"
        "Content-Length: 0\r\n\r\n".encode()
    )
    await writer.drain()
    while not daemon.called("sessions.create"):  # noqa: ASYNC110  # the daemon tells nobody
        await asyncio.sleep(0.005)
    writer.close()
    await writer.wait_closed()
    gate.set()
    async with asyncio.timeout(10):
        while not daemon.sessions:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.005)
    (session,) = daemon.sessions.values()
    assert (await api.proxy(session.slug, person.token)).status == 200


async def raw(api: Api, request_bytes: bytes) -> Answer:
    """One request, written as it is; the answer, read to its end."""
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    writer.write(request_bytes)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["Content-Length"]))
    writer.close()
    await writer.wait_closed()
    return Answer(int(head[0].split()[1]), headers, body)
