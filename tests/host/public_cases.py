"""Owns requests as nobody writes them, and what section 5 of the contract says about each.

A case is made of a host, a path, a caller, headers and a body, each spelled in a way that a table names together with its
effect, so that what has to be answered, and which container may see it, is known before it is sent. `Case.statuses` is
exact for whatever is HTTP; what is not may be refused in several ways, but never goes anywhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.host.public_world import World

# How Caddy refuses what is not HTTP; None: it closes the connection without a word.
REFUSED = frozenset({None, 400, 408, 413, 414, 417, 431, 501, 505})
FORGED_VALUE = "forged"
MARK = "X-Case"
NAVIGATION = (
    ("Accept", "text/html,*/*;q=0.8"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Site", "none"),
)
# What Caddy takes for a session's host in an origin, in letters of any case.
_SIBLING = re.compile(r"s-[^/]*\.medforge\.localhost(?::[0-9]+)?", re.IGNORECASE)
_INTERNAL = [
    *("X-Upstream", "X-Upstream-Host", "X-Medforge-User", "X-Medforge-Upstream", "X-Medforge-Slug", "X-User-Id"),
    *("X-User-Email", "X-Auth-Request-User", "X-Authenticated-User", "X-Remote-User", "Remote-User", "Remote-Groups"),
    *("X-Forwarded-User", "X-Forwarded-Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Uri", "Forwarded"),
    *("X-Forwarded-Method", "X-Forwarded-Port", "X-Real-IP", "X-Original-URL", "X-Rewrite-URL", "X-Client-IP"),
    "True-Client-IP",
]


@dataclass(frozen=True)
class Case:
    """`raw` as it goes over the wire. `pairs` is the same for HTTP/2, where it can be said there."""

    mark: str
    raw: bytes
    method: str
    statuses: frozenset[int | None]
    reaches: str | None
    """The slug of the container that sees it; None: none may."""
    certain: bool
    """Whether it has to be answered so; else it may be refused for its form as well."""
    who: str
    clean: bool
    """Whether the connection is good for another request."""
    pairs: tuple[tuple[str, str], ...] | None
    told: str


@dataclass
class _Draft:
    """A case in the making."""

    slug: str
    host: str = ""
    host_lines: list[str] | None = None
    named: bool = True
    """Whether the host names a session at all."""
    method: str = "GET"
    target: str = "/"
    question: bool = False
    """Whether the path is the facade's question in one of its spellings."""
    asterisk: bool = False
    """Whether it asks about the server as a whole, and not about anything of it."""
    who: str = "nobody"
    headers: list[tuple[str, str]] | None = None
    body: bytes = b""
    framing: list[str] | None = None
    version: str = "HTTP/1.1"
    navigation: bool = False
    foreign: bool = False
    """Whether it comes from a page that may not do this."""
    broken: bool = False
    """Whether it is not HTTP, for whoever reads it."""
    odd: bool = False
    """Whether it may be taken for HTTP or not."""
    newline: str = "\r\n"
    http2: bool = True


def make(world: World, rng: random.Random, number: int) -> Case:
    """The case of this number."""
    draft = _Draft(slug=world.sessions[rng.choice(["ada", "ada", "bob", "bob", "starting", "stopping", "none"])])
    draft.headers = []
    told = [
        _host(world, draft, rng),
        _caller(world, draft, rng),
        _target(world, draft, rng),
        _headers(world, draft, rng),
        _origin(world, draft, rng),
        _message(world, draft, rng, number),
    ]
    mark = f"c{number}"
    lines = [f"{draft.method} {draft.target} {draft.version}".strip(), *(draft.host_lines or [])]
    spelled = [(MARK, mark), *draft.headers]
    rng.shuffle(spelled)
    lines += [f"{name}:{_space(rng)}{value}" for name, value in spelled] + (draft.framing or [])
    raw = draft.newline.join([*lines, "", ""]).encode("utf-8", "surrogateescape") + draft.body
    statuses, reaches = _verdict(world, draft)
    if draft.odd:
        statuses |= REFUSED
    pairs = None
    if draft.http2 and not draft.broken and draft.target.startswith("/"):
        pairs = (
            *((":method", draft.method), (":scheme", "https"), (":authority", draft.host), (":path", draft.target)),
            *((name.lower(), value) for name, value in spelled),
        )
    clean = not draft.broken and not draft.odd and draft.version == "HTTP/1.1" and draft.newline == "\r\n"
    words = "; ".join(filter(None, told))
    return Case(mark, raw, draft.method, statuses, reaches, not draft.odd, draft.who, clean, pairs, words)


def _verdict(world: World, draft: _Draft) -> tuple[frozenset[int | None], str | None]:
    """The table of section 5, and what stands before it."""
    if draft.broken:
        return REFUSED | {403, 404}, None
    if draft.asterisk and draft.method == "OPTIONS":
        # Answered by Caddy's HTTP server itself, without asking anybody.
        return frozenset({200}), None
    if draft.question:
        # Also under names that no session can have, as long as they are the wildcard's.
        return frozenset({403} if draft.named else {403, 404}), None
    if not draft.named:
        # The host of a session with a domain in other letters: a page is looked at before the name is.
        nearly = draft.host.startswith(f"s-{draft.slug}.medforge.LOCALHOST")
        return frozenset({403 if nearly and draft.foreign else 404}), None
    if draft.foreign:
        return frozenset({403}), None
    if draft.who == "nobody":
        seen = draft.navigation and draft.method in ("GET", "HEAD")
        return frozenset({302 if seen else 401}), None
    if draft.slug == world.sessions["none"]:
        return frozenset({404}), None
    owner = world.owner(draft.slug) or "ada"
    if draft.who not in (owner, "root"):
        return frozenset({403}), None
    if world.owner(draft.slug) is None:
        return frozenset({404}), None
    return frozenset({200}), draft.slug


def _space(rng: random.Random) -> str:
    return rng.choice([" ", " ", " ", "", "\t", "  "])


def _host(world: World, draft: _Draft, rng: random.Random) -> str:
    port = world.site.port
    name = f"s-{draft.slug}.medforge.localhost"
    draft.host = name + rng.choice([f":{port}", f":{port}", "", ":443", ":1"])
    kind = rng.random()
    if kind < 0.75:
        pass
    elif kind < 0.93:
        draft.named = False
        draft.host = rng.choice(
            [
                *(name.upper(), f"S-{draft.slug}.medforge.localhost", f"s-{draft.slug}.MedForge.localhost"),
                *(f"s-{draft.slug}.medforge.LOCALHOST", f"s-{draft.slug.upper()}.medforge.localhost"),
                *(f"{name}.", f"{name}.:{port}", f"s-{draft.slug}x.medforge.localhost", f"s-{draft.slug[1:]}.medforge.localhost"),
                *(f"s-{draft.slug}1.medforge.localhost", f"ss-{draft.slug}.medforge.localhost", f"x{name}", f"x.{name}"),
                *(f"{name}.evil.test", f"s-{draft.slug}.medforge.evil.test", f"{draft.slug}.medforge.localhost"),
                *(f"s-{draft.slug[:7]}0.medforge.localhost", "s-.medforge.localhost", "localhost", "127.0.0.1", "[::1]"),
                *(f"s_{draft.slug}.medforge.localhost", f"mf-session-{draft.slug}:8080", "evil.test", f"%73-{draft.slug}.medforge.localhost"),
            ]
        )  # fmt: skip
    else:
        draft.broken = True
        lines: list[list[str]] = [
            [],
            [f"Host: {draft.host}", f"Host: {draft.host}"],
            [f"Host: {draft.host}", f"Host: s-{world.sessions['bob']}.medforge.localhost"],
            [f"Host : {draft.host}"],
            [f"Host: {draft.host} {draft.host}"],
            [f"Host: {draft.host}\x00"],
            [f"Host: user@{draft.host}"],
            [f"Host: {draft.host}/"],
            [f"Host: {draft.host}\\"],
            [f"Host: {draft.host}, evil.test"],
            ["Host:"],
            [f"Host: s-{draft.slug}.medforge.localhost:x"],
            [f"Host: s-{draft.slug}.medforge.localhost:99999999"],
            [f"Host: s-{draft.slug}.m\u0435dforge.localhost"],
            [f"H\u00f6st: {draft.host}"],
            [f" Host: {draft.host}"],
        ]
        draft.host_lines = rng.choice(lines)
        return f"host lines {draft.host_lines}"
    draft.host_lines = [f"{rng.choice(['Host', 'host', 'HOST'])}: {draft.host}"]
    return f"host {draft.host}"


# How a token is carried, and whether that says who is asking.
_CARRIERS: list[tuple[str, Callable[[str], list[str]], bool]] = [
    ("plain", lambda token: [f"medforge_session={token}"], True),
    ("among others", lambda token: [f"a=1; medforge_session={token}; b=2"], True),
    ("without spaces", lambda token: [f"a=1;medforge_session={token};b=2"], True),
    ("twice", lambda token: [f"medforge_session={token}; medforge_session={token}"], True),
    ("in two headers", lambda token: ["a=1", f"medforge_session={token}"], True),
    ("behind a tab", lambda token: [f"a=1;\tmedforge_session={token}"], True),
    ("behind nothing", lambda token: [f";;medforge_session={token};;"], True),
    ("behind junk", lambda token: [f"medforge_session={'j' * 43}; medforge_session={token}"], True),
    ("in quoted company", lambda token: [f'a="; medforge_session={token}; b="'], True),
    ("in other letters", lambda token: [f"MedForge_Session={token}"], False),
    ("in quotes", lambda token: [f'medforge_session="{token}"'], False),
    ("with a space", lambda token: [f"medforge_session ={token}"], False),
    ("with a space behind", lambda token: [f"medforge_session= {token}"], False),
    ("too long", lambda token: [f"medforge_session={token}A"], False),
    ("too short", lambda token: [f"medforge_session={token[:-1]}"], False),
    ("behind a comma", lambda token: [f"a=1, medforge_session={token}"], False),
    ("as a value", lambda token: [f"a=medforge_session={token}"], False),
    ("after a word", lambda token: [f"$Version=1 medforge_session={token}"], False),
]


def _caller(world: World, draft: _Draft, rng: random.Random) -> str:
    assert draft.headers is not None
    kind = rng.random()
    if kind < 0.12:
        value = rng.choice([None, "", "medforge_session=", f"medforge_session={'x' * 43}", "a=1", "medforge_session"])
        draft.headers += [("Cookie", value)] if value is not None else []
        return f"nobody ({value})"
    if kind < 0.18:
        draft.headers.append(("Cookie", f"medforge_session={world.tokens['gone']}"))
        return "signed out"
    if kind < 0.23:
        first, second = rng.sample(["ada", "bob", "root"], 2)
        draft.headers.append(
            ("Cookie", f"medforge_session={world.tokens[first]}; medforge_session={world.tokens[second]}")
        )
        return f"{first} and {second} in one"
    who = rng.choice(["ada", "bob", "root"])
    name, carry, counts = rng.choice(_CARRIERS) if kind > 0.5 else _CARRIERS[0]
    header = rng.choice(["Cookie", "Cookie", "cookie", "COOKIE"])
    draft.headers += [(header, value) for value in carry(world.tokens[who])]
    if counts:
        draft.who = who
    return f"{who} {name}"


_ORDINARY = [
    *(
        "/",
        "/?",
        "/a/b.js?x=1",
        "/?path=/api/v1/auth/session-proxy",
        "/api/v1/sessions",
        "/session-proxy",
        "/a%2Fb%5C%20",
    ),
    *("/%E2%82%AC", "//double//slash", "/dots/../and/./dots", "/semi;c=1/q?a;b=c&d=%20+", "/a~!$&'()*+,=:@", "/%00"),
    *("/proxy/8888/", "/%7Bhttp.request.uuid%7D/?x={http.request.uuid}", "/{re.slug.1}", "/api/v1/auth/session_proxy"),
    *("/../../etc/passwd", "/.well-known/x", "/%2e%2e/%2e%2e/", "//", "/\\\\x\\y", "/api/v1/me", "/healthz", "/login"),
]
_BROKEN_TARGETS = ["/%zz", "/%", "index", "", "/a b", "/\x00", "/\x7f", "/" + "a" * 80_000, "://x"]


def question(rng: random.Random) -> str:
    """The path of the facade's question, spelled anyhow."""

    def letter(char: str) -> str:
        kind = rng.random()
        if kind < 0.75:
            return char
        if kind < 0.85:
            return char.upper()
        code = f"{ord(rng.choice([char, char.upper()])):02x}"
        return "%" + "25" * rng.choice([0, 0, 0, 1, 2]) + rng.choice([code, code.upper()])

    def slash() -> str:
        odd = ["//", "/./", "/x/../", "\\", "%2f", "%5C", "/%2e/", "/;a=b/", "///", "%252F", "/.;/"]
        return "/" if rng.random() < 0.7 else rng.choice(odd)

    words = [
        rng.choice(["api", "api", "x/../api"]),
        rng.choice(["v1", "v1", "v2", "v1/external"]),
        "auth",
        "session-proxy",
    ]
    spelled = ["".join(letter(char) if char.isalpha() or char == "-" else char for char in word) for word in words]
    path = "".join(slash() + word for word in spelled)
    if not path.startswith("/"):
        path = "/" + path
    return path + rng.choice(["", "", "", "/", "?x=y", "/more", ".", ";x", "%20", "%00", "?"])


def _target(world: World, draft: _Draft, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        draft.target = rng.choice(_ORDINARY)
    elif kind < 0.78:
        draft.target, draft.question = question(rng), True
    elif kind < 0.8:
        draft.target, draft.http2, draft.asterisk = "*", False, True
    elif kind < 0.95:
        # The authority of the target is the host, whatever the header says (RFC 9112 section 3.2.2).
        draft.http2 = False
        other = world.sessions[rng.choice(["ada", "bob", "none"])]
        path = rng.choice(["/x", "", "/?y"])
        if rng.random() < 0.3:
            path, draft.question = question(rng), True
        draft.target = (
            f"{rng.choice(['https', 'http', 'HTTPS'])}://s-{other}.medforge.localhost:{world.site.port}{path}"
        )
        if draft.broken:
            draft.broken, draft.odd = False, True
        draft.slug, draft.named = other, True
        draft.host = f"s-{other}.medforge.localhost:{world.site.port}"
    else:
        draft.target, draft.broken = rng.choice(_BROKEN_TARGETS), True
    return f"target {draft.target[:120]!r}"


def _headers(world: World, draft: _Draft, rng: random.Random) -> str:
    assert draft.headers is not None
    told = []
    if rng.random() < 0.35:
        draft.navigation = True
        draft.headers += NAVIGATION
        told.append("navigation")
    for _ in range(rng.choice([0, 0, 1, 2, 3])):
        name = forged_name(rng)
        draft.headers.append(
            (name, rng.choice([FORGED_VALUE, f"{FORGED_VALUE}, x", f"mf-session-{draft.slug}:8080 {FORGED_VALUE}"]))
        )
        told.append(name)
    if rng.random() < 0.08:
        draft.headers.append(("Authorization", f"Bearer mft_{world.tokens['root']}"))
        told.append("a token")
    if rng.random() < 0.05:
        draft.headers.append(("Connection", rng.choice(["X-Forwarded-For", "keep-alive, X-Upstream", "Upgrade", "Te"])))
        draft.http2 = False
        told.append("Connection")
    return " ".join(told)


def forged_name(rng: random.Random) -> str:
    """A header that means something inside, in other letters, or as servers that read _ for - would take it."""
    name = rng.choice(_INTERNAL)
    kind = rng.random()
    if kind < 0.3:
        return name
    if kind < 0.6:
        return "".join(rng.choice([char.lower(), char.upper()]) for char in name)
    if kind < 0.9:
        return "".join("_" if char == "-" and rng.random() < 0.6 else char for char in name).replace("-", "_", 1)
    return name + rng.choice(["_", "_x"])


def _origin(world: World, draft: _Draft, rng: random.Random) -> str:
    assert draft.headers is not None
    draft.method = rng.choice(["GET"] * 6 + ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "get"])
    if rng.random() > 0.25:
        return draft.method
    writes = draft.method not in ("GET", "HEAD", "OPTIONS")
    port = world.site.port
    own, sibling = f"https://{draft.host}", f"https://s-aaaaaaaa.medforge.localhost:{port}"
    origin, foreign = rng.choice(
        [
            (own, False),
            (sibling, True),
            (sibling.upper().replace("HTTPS", "http"), True),
            ("https://s-aaaaaaaa.medforge.localhost", True),
            (f"https://medforge.localhost:{port}", writes),
            ("https://evil.test", writes),
            ("null", writes),
            ("http://" + draft.host, writes or _SIBLING.fullmatch(draft.host) is not None),
            (own + ".evil.test", writes),
        ]
    )
    draft.headers.append(("Origin", origin))
    draft.foreign = foreign
    return f"{draft.method} from {origin}"


def _message(world: World, draft: _Draft, rng: random.Random, number: int) -> str:
    """Body, framing, version and line ends."""
    assert draft.headers is not None
    kind = rng.random()
    if kind < 0.6 and draft.method in ("GET", "HEAD", "OPTIONS"):
        return ""
    if kind < 0.75:
        draft.body, draft.http2 = b"payload", False
        draft.framing = [f"Content-Length: {len(draft.body)}"]
        return "body"
    if kind < 0.82:
        draft.body, draft.http2 = b"7;x=y\r\npayload\r\n0\r\nX-Upstream: forged\r\nX_Trailer: forged\r\n\r\n", False
        draft.framing = [
            rng.choice(["Transfer-Encoding: chunked", "transfer-encoding: Chunked"]),
            "Trailer: X-Upstream",
        ]
        return "chunked with trailers"
    if kind < 0.9:
        return _smuggle(world, draft, rng, number)
    if kind < 0.95:
        draft.version, draft.broken = (
            rng.choice(["HTTP/0.9", "HTTP/2.0", "http/1.1", "HTTP/11", "HTTP/1.1 x", "", "HTTP/1.1\x00"]),
            True,
        )
        return f"version {draft.version!r}"
    draft.http2 = False
    if kind < 0.975:
        draft.version = "HTTP/1.0"
        return "HTTP/1.0"
    if rng.random() < 0.5:
        draft.newline = "\n"
        return "bare line feeds"
    draft.headers.append(("X-Folded", f"a\r\n {FORGED_VALUE.upper()}: b"))
    return "obsolete folding"


def _smuggle(world: World, draft: _Draft, rng: random.Random, number: int) -> str:
    """Two opinions about where the body ends; what hides in it asks, as ada, for bob's session."""
    hidden = (
        f"GET /smuggled HTTP/1.1\r\nHost: s-{world.sessions['bob']}.medforge.localhost\r\n"
        f"Cookie: medforge_session={world.tokens['ada']}\r\n{MARK}: smuggled{number}\r\n\r\n"
    ).encode()
    ended = b"0\r\n\r\n" + hidden
    draft.framing = rng.choice(
        [
            [f"Content-Length: {len(ended)}", "Transfer-Encoding: chunked"],
            ["Content-Length: 5", f"Content-Length: {len(ended)}", ""][:2],
            ["Content-Length: 0", "Transfer-Encoding: xchunked"],
            ["Transfer-Encoding: chunked, identity"],
            ["Transfer-Encoding: identity, chunked"],
            ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding:\x0bchunked"],
            ["Transfer-Encoding : chunked"],
            ["Content-Length: +5"],
            ["Content-Length: 5,5"],
            ["Content-Length: 0x5"],
            ["Content-Length: -1"],
            ["Content-Length: "],
            ["Content_Length: 5"],
        ]
    )
    draft.body, draft.odd, draft.http2 = ended, True, False
    return f"framing {draft.framing}"
