"""Owns the requests of `ops/bench soak`: everything that the public can send, most of it good, none of it twice alike.

What is only asked again and again shows no leak. So hosts, cookies, tokens, addresses, accounts and paths are new ones
each time, which is what fills memories that have no bound.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

SITE = "medforge.localhost"
PASSWORD = "correct horse battery"  # of accounts that exist for as long as a soak
_SLUG = "abcdefghijklmnopqrstuvwxyz234567"
QUESTION = "/api/v1/auth/session-proxy"


@dataclass
class Load:
    """Requests over the facade's Unix socket, on so many connections, until told to stop."""

    socket: str
    slug: str
    token: str
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    """Connections that ended without the answer that was due."""
    stopping: bool = False

    async def run(self, connections: int) -> None:
        await asyncio.gather(*(self._connection(random.Random(number)) for number in range(connections)))

    async def _connection(self, rng: random.Random) -> None:
        reader = writer = None
        while not self.stopping:
            if writer is None:
                reader, writer = await asyncio.open_unix_connection(self.socket, limit=2**20)
            assert reader is not None
            raw, lasts = rng.choices(_MAKERS, _WEIGHTS)[0](self, rng)
            try:
                writer.write(raw)
                status, closes = await _answer(reader)
            except (OSError, asyncio.IncompleteReadError):
                self.lost += 1
                status, closes = 0, True
            self.statuses[status] += 1
            if closes or not lasts:
                writer.close()
                writer = None
        if writer is not None:
            writer.close()

    @property
    def cookie(self) -> str:
        return f"medforge_session={self.token}"


def _enter(load: Load, rng: random.Random) -> tuple[bytes, bool]:
    return get(QUESTION, f"s-{load.slug}.{SITE}", load.cookie, {"X-Forwarded-Uri": _path(rng)}), True


def _enter_unknown(load: Load, _rng: random.Random) -> tuple[bytes, bool]:
    return get(QUESTION, f"s-{load.slug}.{SITE}", f"medforge_session={new_token()}"), True


def _enter_nothing(load: Load, rng: random.Random) -> tuple[bytes, bool]:
    slug = "".join(rng.choice(_SLUG) for _ in range(8))
    page = {"Accept": "text/html", "X-Forwarded-Uri": _path(rng)}
    return get(QUESTION, f"s-{slug}.{SITE}", load.cookie, page), True


def _me(load: Load, _rng: random.Random) -> tuple[bytes, bool]:
    return get("/api/v1/me", SITE, load.cookie), True


def _unknown_token(_load: Load, _rng: random.Random) -> tuple[bytes, bool]:
    return get("/api/v1/me", SITE, "", {"Authorization": f"Bearer mft_{new_token()}"}), True


def _nowhere(load: Load, rng: random.Random) -> tuple[bytes, bool]:
    return get(_path(rng), SITE, load.cookie, {"X-Request-ID": new_token()}), True


def _page(_load: Load, rng: random.Random) -> tuple[bytes, bool]:
    return get(rng.choice(["/", "/login", "/docs", "/healthz", "/api/v1/openapi.json"]), SITE), True


def _sessions(load: Load, _rng: random.Random) -> tuple[bytes, bool]:
    return get("/api/v1/sessions?limit=5", SITE, load.cookie), True


def _malformed(_load: Load, _rng: random.Random) -> tuple[bytes, bool]:
    return b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", False


def _password(_load: Load, rng: random.Random) -> tuple[bytes, bool]:
    address = f"{rng.randrange(1, 224)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
    account = {"email": f"{secrets.token_hex(16)}@example.org", "password": PASSWORD}
    verb = rng.choice(["login", "login", "signup"])
    return post(f"/api/v1/auth/{verb}", account, {"X-Forwarded-For": address}), True


def _sign_out(_load: Load, _rng: random.Random) -> tuple[bytes, bool]:
    return post("/api/v1/auth/logout", {}, {"Cookie": f"medforge_session={new_token()}"}), True


# Of a thousand requests, so many are of this kind. Passwords are few, since each is meant to take long.
_MIX: dict[Callable[[Load, random.Random], tuple[bytes, bool]], float] = {
    _enter: 700,
    _enter_unknown: 80,
    _enter_nothing: 60,
    _me: 50,
    _unknown_token: 30,
    _nowhere: 30,
    _page: 20,
    _sessions: 10,
    _malformed: 5,
    _password: 0.5,
    _sign_out: 14.5,
}
_MAKERS, _WEIGHTS = list(_MIX), list(_MIX.values())


def new_token() -> str:
    return secrets.token_urlsafe(32)


def _path(rng: random.Random) -> str:
    return f"/static/{rng.getrandbits(64):x}/{rng.getrandbits(32):x}.js?v={rng.getrandbits(32):x}"


def get(path: str, host: str, cookie: str = "", headers: dict[str, str] | None = None) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    if cookie:
        lines.append(f"Cookie: {cookie}")
    return "\r\n".join([*lines, "", ""]).encode()


def post(path: str, body: object, headers: dict[str, str] | None = None) -> bytes:
    packed = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {SITE}",
        "Content-Type: application/json",
        f"Content-Length: {len(packed)}",
    ]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + packed


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status, and whether the connection ends with it."""
    head = await reader.readuntil(b"\r\n\r\n")
    low = head.lower()
    at = low.find(b"content-length: ")
    if at >= 0:
        await reader.readexactly(int(low[at + 16 : low.index(b"\r\n", at)]))
    return int(head[9:12]), b"connection: close" in low


async def ask(socket: str, raw: bytes) -> tuple[bytes, bytes]:
    """Head and body of one answer."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        low = head.lower()
        at = low.find(b"content-length: ")
        return head, await reader.readexactly(int(low[at + 16 : low.index(b"\r\n", at)]))
    finally:
        writer.close()
