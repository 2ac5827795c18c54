"""What a session's container gets and what it can give: of 1,000 varied requests and websockets, none brings it the
platform's cookie, a token or a header of ours, and none of its answers sets a cookie beyond its own host.

The container records; see tests/host/public_world.py. `MEDFORGE_FUZZ_SEED` repeats a run.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.host.caddy_site import Message, Wire
from tests.host.public_cases import FORGED_VALUE, MARK, NAVIGATION, forged_name
from tests.host.public_wire import Multiplexed, connect
from tests.host.public_world import CADDYFILE, World, caddy_drops_underscores, world

pytestmark = pytest.mark.host

VISITS = int(os.environ.get("MEDFORGE_FUZZ_VISITS", "1000"))
SEED = int(os.environ.get("MEDFORGE_FUZZ_SEED", random.SystemRandom().randrange(2**32)))
CONTROL_VISITS = 150
TOKEN = "mft_" + "k" * 43  # of the right form, and nobody's
# No browser sends this one here: it is the site's own, by its prefix. Nor would it arrive.
DEVICE = "d" * 64
# What is between the visitor and the session, and has to arrive.
TENANTS = [
    ("Authorization", "Bearer tenants-own"),
    ("Authorization", "Basic YTpi"),
    ("Cookie", "own=1"),
    ("X-Own", "1"),
]


@pytest.fixture(scope="module")
def public() -> Iterator[World]:
    with world() as made:
        yield made


def visit(public: World, rng: random.Random, number: int) -> tuple[str, list[tuple[str, str]]]:
    """Method and headers of a visit by somebody who may, with all that must not arrive."""
    token = public.tokens[rng.choice(["ada", "root"])]
    cookies = rng.choice(
        [
            [f"medforge_session={token}"],
            [f"own=1; medforge_session={token}; other=2"],
            [f"own=1;medforge_session={token}"],
            ["own=1", f"medforge_session={token}", "other=2"],
            [f"medforge_session={'j' * 43}; medforge_session={token}; MEDFORGE_SESSION={token}"],
            [f"medforge_session={token}; medforge_session={token}"],
            [f'own="; medforge_session={token}; medforge_session="{token}"'],
            [f"medforge_session={token}; x=1, medforge_session={token}"],
            [f"medforge_session={token}; x=medforge_session={token}"],
            [f"medforge_session={token}; medforge_session ={token}; medforge_session\t= {token}"],
            [f"__Host-medforge_device={DEVICE}; medforge_session={token}; a=1, __Host-medforge_device={DEVICE}"],
        ]
    )
    headers = [(rng.choice(["Cookie", "cookie", "COOKIE"]), value) for value in cookies]
    headers += [(forged_name(rng), FORGED_VALUE) for _ in range(rng.randrange(5))]
    if rng.random() < 0.3:
        scheme = rng.choice(["Bearer ", "bearer ", "BEARER  ", "Token ", "", "Bearer x, Bearer ", 'Bearer "'])
        headers.append((rng.choice(["Authorization", "authorization"]), scheme + TOKEN))
    elif rng.random() < 0.3:
        headers.append(rng.choice(TENANTS[:2]))
    if rng.random() < 0.2:
        headers += NAVIGATION
    if rng.random() < 0.1:
        headers.append(("Connection", rng.choice(["keep-alive, X-Upstream", "X-Forwarded-For", "X-Medforge-User"])))
    headers += [(MARK, f"v{number}"), ("X-Own", "1")]
    rng.shuffle(headers)
    return rng.choice(["GET", "GET", "GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]), headers


# A session's cookies, each in a form that some browser takes for one of the platform, or for one of every host.
def evil_cookie(rng: random.Random) -> str:
    name = rng.choice(["medforge_session", "MedForge_Session", "MEDFORGE_SESSION", "medforge_device"])
    space = rng.choice(["", " ", "\t", "  "])
    domain = rng.choice(["Domain", "domain", "DOMAIN", " Domain", "\tdomain ", "Domain "])
    host = rng.choice(["medforge.localhost", ".medforge.localhost", "localhost", '"medforge.localhost"', ""])
    path = rng.choice(["", "; Path=/", "; Path=/api", "; Secure; HttpOnly", "; Max-Age=0", "; Priority=High"])
    return rng.choice(
        [
            f"{space}{name}{space}=evil{path}",
            f"{name}=evil{path};{domain}={host}",
            f"={name}=evil{path}",
            f"{space}={space}{name}",
            f"{name}{path}",
            f'"{name}"=evil',
            f"a=1{path};{domain}={host}",
            f"a=1;{domain}={host};{domain}={host}{path}",
            f"a=1;{domain}{path}",
            f"__Host-{name}=evil; Secure; Path=/",
            f"__Secure-{name}=evil; Secure;{domain}={host}",
            f"a=1, {name}=evil{path}",
        ]
    )


class Tenant:
    """What answers in the container: cookies wherever HTTP has a place for headers."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, request: Message, wire: Wire) -> None:
        rng = self._rng
        cookies = [f"Set-Cookie: {evil_cookie(rng)}" for _ in range(rng.randrange(1, 4))]
        kind = rng.random()
        if (request.value("Upgrade") or "").lower() == "websocket":
            self._websocket(request, wire, cookies if kind < 0.5 else [])
        elif kind < 0.2:
            status = rng.choice(["103 Early Hints", "102 Processing"])
            wire.send(_head(status, *cookies) + _head("200 OK", *cookies, "Content-Length: 7") + b"session")
        elif kind < 0.5:
            named = rng.choice(["Trailer: Set-Cookie", "Trailer: X-End, Set-Cookie", "X-None: 1", "Trailer: X-End"])
            body = b"7\r\nsession\r\n0\r\n" + "\r\n".join([*cookies, "X-End: 1", "", ""]).encode()
            wire.send(_head("200 OK", *cookies, named, "Transfer-Encoding: chunked") + body)
        else:
            status = rng.choice(["200 OK", "302 Found", "404 Not Found", "401 Unauthorized", "500 Oops", "201 Created"])
            wire.send(_head(status, *cookies, "Content-Length: 7", "Location: /", "X-Upstream: evil:1") + b"session")

    @staticmethod
    def _websocket(request: Message, wire: Wire, cookies: list[str]) -> None:
        magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        key = base64.b64encode(hashlib.sha1(((request.value("Sec-WebSocket-Key") or "") + magic).encode()).digest())
        accepted = f"Sec-WebSocket-Accept: {key.decode()}"
        wire.send(_head("101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", accepted, *cookies))
        wire.send(b"\x81\x07session")
        wire.close()


def _head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def everything(public: World, raw: bytes) -> str:
    """All that comes back until the connection ends, or an answer that refuses to open a websocket."""
    with connect(public.site, "http/1.1") as sock:
        sock.sendall(raw)
        got = b""
        while not _refused(got) and (data := sock.recv(65536)):
            got += data
    return got.decode("latin-1")


def _refused(got: bytes) -> bool:
    head, end, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\ncontent-length: (\d+)", head)
    return bool(head.startswith(b"HTTP/1.1 502") and end and length) and len(body) == int(length[1])


def run(public: World, count: int) -> list[str]:
    """What arrived, or came back, that must not have."""
    rng = random.Random(SEED)
    host = f"s-{public.sessions['ada']}.medforge.localhost:{public.site.port}"
    recorder = public.recorders["ada"]
    welcome, recorder.script = recorder.script, Tenant(random.Random(SEED + 1))
    public.forget()
    faults: list[str] = []
    kinds: Counter[str] = Counter()
    try:
        for number in range(count):
            method, headers = visit(public, rng, number)
            kind = rng.random()
            if kind < 0.15:
                method = "GET"
                headers = [pair for pair in headers if pair[0] != "Connection"]
                headers += [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
                headers += [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Origin", f"https://{host}")]
            else:
                headers.append(("Connection", "close"))
            kinds["websocket" if kind < 0.15 else method] += 1
            body = b"payload" if method in ("POST", "PUT", "PATCH") else b""
            lines = [f"{method} /v{number}?x={number} HTTP/1.1", f"Host: {host}", *(f"{n}: {v}" for n, v in headers)]
            lines += [f"Content-Length: {len(body)}"] if body else []
            came = everything(public, "\r\n".join([*lines, "", ""]).encode() + body)
            faults += given(came, f"v{number}")
        faults += run_http2(public, rng, host, count // 10)
    finally:
        recorder.script = welcome
    print(f"seed {SEED}: {dict(kinds)}, and {count // 10} over HTTP/2")
    assert kinds["websocket"] > count / 20
    arrived = [seen.value(MARK) for seen in recorder.seen]
    if sorted(filter(None, arrived)) != sorted(f"v{number}" for number in range(count + count // 10)):
        faults.append(f"{len(arrived)} of {count + count // 10} visits arrived")
    for seen in recorder.seen:
        faults += got(public, seen)
    if public.recorders["bob"].seen:
        faults.append("another container was reached")
    return faults


def run_http2(public: World, rng: random.Random, host: str, count: int) -> list[str]:
    with Multiplexed(public.site) as multiplexed:
        for number in range(count):
            method, headers = visit(public, rng, 0)
            pairs = [(":method", method), (":scheme", "https"), (":authority", host), (":path", "/h2")]
            named = [(name, value) for name, value in headers if name not in ("Connection", MARK)]
            named.append((MARK, f"v{10 * count + number}"))
            multiplexed.send((*pairs, *((name.lower(), value) for name, value in named)))
    return []


def got(public: World, seen: Message) -> list[str]:
    """What the container has seen that is not its business."""
    faults = []
    for name, value in seen.headers:
        low = name.lower()
        inside = low.startswith(("x-upstream", "x-medforge", "x-user", "x-auth", "remote-", "x-original", "x-rewrite"))
        forged = FORGED_VALUE in value or "_" in name or inside
        secret = "mft_" in value.lower() or any(token in value for token in public.tokens.values())
        if forged or secret or "medforge_" in value.lower() or DEVICE in value:
            faults.append(f"got {name}: {value} ({seen.value(MARK)})")
    if seen.value("X-Own") != "1":
        faults.append(f"what is the tenant's did not arrive ({seen.value(MARK)})")
    if seen.value("X-Forwarded-Proto") != "https":
        faults.append(f"got no word of how it was reached ({seen.value(MARK)})")
    return faults


def given(came: str, mark: str) -> list[str]:
    """The cookies that a browser would have taken and that are not the session's own.

    Trailers are left out. Caddy passes them on as they are, and no client takes a cookie from one (RFC 9110 section
    6.5.1); tests/browser/test_cookies.py asks a browser.
    """
    faults = []
    gave = "gave on opening" if came.startswith("HTTP/1.1 101") else "gave"
    for line in came.partition("\r\n\r\nsession")[0].partition("\r\n\r\n7\r\nsession")[0].split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() != "set-cookie" or not value.strip():
            continue
        pair, *attributes = value.split(";")
        key, equals, rest = pair.partition("=")
        # Without a name a cookie is its value, and is sent like a pair.
        sent = f"{key.strip()}={rest.strip()}" if equals and key.strip() else (rest.strip() or key.strip())
        if "medforge_" in sent.lower().replace("medforge_refused=", ""):
            faults.append(f"{gave} {line} ({mark})")
        if any(attribute.partition("=")[0].strip().lower() == "domain" for attribute in attributes):
            faults.append(f"{gave} {line} ({mark})")
    if "x-upstream" in came.lower():
        faults.append(f"gave X-Upstream ({mark})")
    return faults


def test_nothing_of_the_platform_reaches_a_session_and_nothing_of_it_reaches_beyond(public: World) -> None:
    faults = run(public, VISITS)
    assert not faults, f"seed {SEED}, {len(faults)} faults, the first of them:\n" + "\n".join(faults[:12])


@pytest.mark.parametrize("tenants", TENANTS)
def test_what_is_between_a_visitor_and_the_session_arrives(public: World, tenants: tuple[str, str]) -> None:
    host = f"s-{public.sessions['ada']}.medforge.localhost:{public.site.port}"
    public.forget()
    lines = ["GET / HTTP/1.1", f"Host: {host}", "Connection: close", f"{tenants[0]}: {tenants[1]}"]
    lines += [f"Cookie: medforge_session={public.tokens['ada']}"]
    everything(public, "\r\n".join([*lines, "", ""]).encode())
    [seen] = public.recorders["ada"].seen
    assert tenants in [(name, value) for name, value in seen.headers if value]


CONTROLS = {
    "cookie": ('request_header Cookie "(?i)(^|;)', 'request_header Cookie "(?i)(^|;)nothing', "got Cookie"),
    "token": ("request_header @platform_token -Authorization", "", "got Authorization"),
    "header": ("request_header -X-Medforge-*", "", "got X-"),
    "underscore": ("request_header -*_*", "", "got X"),
    "set-cookie": (
        'Set-Cookie "(?is)^[^;]*medforge_(?:session|device).*"',
        'X-None "(?is)^[^;]*medforge_(?:session|device).*"',
        "gave ",
    ),
    "domain": ('Set-Cookie "(?i);[^;=]*domain[^;]*"', 'X-None "(?i);[^;=]*domain[^;]*"', "gave "),
    # Newer versions filter this answer like others, so the filter has to be missing too.
    "upgrade": ("handle_response @cookie_on_upgrade {", "handle_response @never {", "gave on opening"),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_a_missing_protection_is_noticed(control: str) -> None:
    if control == "underscore" and caddy_drops_underscores():
        pytest.skip("this Caddy takes names with an underscore out by itself")
    there, instead, noticed = CONTROLS[control]
    text = CADDYFILE.read_text()
    assert text.count(there) == 1
    text = text.replace(there, instead)
    if control == "upgrade":
        text = text.replace("@cookie_on_upgrade {", "@never status 999\n\t\t\t\t\t@cookie_on_upgrade {", 1)
        for filtered in ('Set-Cookie "(?is)', 'Set-Cookie "(?i)'):
            assert text.count(filtered) == 1
            text = text.replace(filtered, filtered.replace("Set-Cookie", "X-None"))
    with world(text) as weak:
        faults = run(weak, CONTROL_VISITS)
    assert any(fault.startswith(noticed) for fault in faults), f"seed {SEED}: {faults[:5]}"
