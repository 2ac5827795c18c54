"""Long-lived and large traffic: websockets, uploads, downloads, trickles, and ends that come and go under Caddy."""

from __future__ import annotations

import base64
import hashlib
import http.client
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest

from tests.host.caddy_site import CaddySite, Message, Wire, admit, answer

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.caddy_fixtures"]

MIB = 1024 * 1024
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept(request: Message, *extra: str) -> bytes:
    key = base64.b64encode(hashlib.sha1(((request.value("Sec-WebSocket-Key") or "") + GUID).encode()).digest()).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {key}", *extra, "", ""]).encode()


def read_frame(wire: Wire) -> tuple[int, bytes]:
    """Opcode and payload of one masked frame from a client."""
    first, second = wire.file.read(2)
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(wire.file.read(2), "big")
    elif size == 127:
        size = int.from_bytes(wire.file.read(8), "big")
    mask = wire.file.read(4)
    data = wire.file.read(size)
    return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    short, long = bytes([size & 0x7F]), b"\x7f" + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + (short if size < 126 else long) + payload


def echo(request: Message, wire: Wire) -> None:
    """A websocket that sends every message back; closes when asked to."""
    wire.send(accept(request) + frame(1, b"hello"))
    while True:
        opcode, payload = read_frame(wire)
        wire.send(frame(opcode, payload))
        if opcode == 8:
            return wire.close()


def client(site: CaddySite) -> aiohttp.ClientSession:
    """Finds every name on loopback and trusts the site's authority."""

    class Loopback(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[aiohttp.abc.ResolveResult]:
            return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

        async def close(self) -> None:
            pass

    context = ssl.create_default_context(cafile=str(site.authority))
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, resolver=Loopback()))


async def test_a_websocket_carries_frames_both_ways(site: CaddySite) -> None:
    site.session.script = echo
    headers = {"Cookie": "medforge_session=T; a=1", "Origin": f"https://{site.host}"}
    async with client(site) as http, http.ws_connect(f"https://{site.host}/ws?x=1", headers=headers) as socket:
        assert (await socket.receive()).data == "hello"
        for message in ("text", "x" * 1000, "y" * 100_000):
            await socket.send_str(message)
            assert (await socket.receive()).data == message
        await socket.send_bytes(b"\x00\xff")
        assert (await socket.receive()).data == b"\x00\xff"

    [arrived] = site.session.seen
    assert arrived.target == "/ws?x=1"
    assert arrived.value("Upgrade") == "websocket"
    assert arrived.value("Cookie") == "a=1"
    [asked] = site.asked()
    assert asked.values("Upgrade") + asked.values("Connection") == []
    assert asked.value("Cookie") == "medforge_session=T; a=1"


async def test_a_websocket_of_a_refused_visitor_is_not_opened(site: CaddySite) -> None:
    site.facade.script = answer(403)
    async with client(site) as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"https://{site.host}/")

    assert refused.value.status == 403
    assert site.session.seen == []


@pytest.mark.parametrize("cookie", ["medforge_session=evil", "a=1; Domain=medforge.localhost", "a=1"])
async def test_opening_a_websocket_cannot_set_a_platform_cookie(site: CaddySite, cookie: str) -> None:
    def script(request: Message, wire: Wire) -> None:
        wire.send(accept(request, f"Set-Cookie: {cookie}"))

    site.session.script = script
    async with client(site) as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"https://{site.host}/")

    assert refused.value.status == 502
    assert refused.value.headers is not None
    assert "Set-Cookie" not in refused.value.headers


async def test_a_websocket_stays_open_while_the_facade_restarts(site: CaddySite) -> None:
    site.session.script = echo
    async with client(site) as http, http.ws_connect(f"https://{site.host}/") as socket:
        assert (await socket.receive()).data == "hello"
        site.facade.stop()
        await socket.send_str("still here")
        assert (await socket.receive()).data == "still here"
        site.facade.start()
        await socket.send_str("and after")
        assert (await socket.receive()).data == "and after"


def test_a_large_upload_streams_through(site: CaddySite) -> None:
    size = 64 * MIB
    first_bytes_arrived = threading.Event()
    arrived = 0

    def script(request: Message, wire: Wire) -> None:
        nonlocal arrived
        while arrived < size:
            arrived += len(wire.file.read(min(MIB, size - arrived)))
            first_bytes_arrived.set()
        answer(200, body=str(arrived).encode())(request, wire)

    site.session.streams, site.session.script = True, script
    wire = site.connect()
    wire.send(f"POST /up HTTP/1.1\r\nHost: {site.host}\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(2 * MIB))
    assert first_bytes_arrived.wait(10), "nothing arrives before the upload is complete"
    for _ in range(size // MIB - 2):
        wire.send(bytes(MIB))

    head = wire.head()
    assert head is not None
    assert wire.body(head, to_end=False) == str(size).encode()


def test_an_upload_of_unknown_length_streams_through(site: CaddySite) -> None:
    wire = site.connect()
    wire.send(f"POST /up HTTP/1.1\r\nHost: {site.host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for _ in range(32):
        wire.send(b"8000\r\n" + bytes(0x8000) + b"\r\n")
    wire.send(b"0\r\n\r\n")

    head = wire.head()
    assert head is not None
    assert head.status == 200
    [seen] = site.session.seen
    assert len(seen.body) == MIB
    [asked] = site.asked()
    assert asked.body == b""
    assert asked.values("Transfer-Encoding") == []


def test_a_large_download_streams_through(site: CaddySite) -> None:
    size = 64 * MIB

    def script(_request: Message, wire: Wire) -> None:
        wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // MIB):
            wire.send(bytes(MIB))

    site.session.script = script

    assert len(site.get("/down").body) == size


@pytest.mark.parametrize("framing", ["length", "chunked", "events"])
def test_what_a_session_writes_arrives_at_once(site: CaddySite, framing: str) -> None:
    """Each piece is sent only after the one before it has been received."""
    received = threading.Semaphore(0)
    pieces = [b"one", b"two", b"three"]

    def script(_request: Message, wire: Wire) -> None:
        kind = {"length": "Content-Length: 11", "chunked": "Transfer-Encoding: chunked"}.get(framing)
        kind = kind or "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked"
        wire.send(f"HTTP/1.1 200 OK\r\n{kind}\r\n\r\n".encode())
        for piece in pieces:
            wire.send(piece if framing == "length" else b"%x\r\n%s\r\n" % (len(piece), piece))
            assert received.acquire(timeout=10)
        if framing != "length":
            wire.send(b"0\r\n\r\n")

    site.session.script = script
    connection = http.client.HTTPSConnection(
        "127.0.0.1", site.port, context=ssl._create_unverified_context(), timeout=10
    )
    connection.request("GET", "/", headers={"Host": site.host})
    got = connection.getresponse()
    for piece in pieces:
        assert got.read(len(piece)) == piece
        received.release()
    connection.close()


def test_a_download_that_a_session_breaks_off_is_not_taken_for_a_whole_one(site: CaddySite) -> None:
    def script(_request: Message, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart")
        wire.close()

    site.session.script = script
    wire = site.connect()
    wire.send(f"GET / HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode())

    head = wire.head()  # newer versions end the connection before they have sent any of it
    if head is not None:
        assert head.value("Content-Length") == "1000"
        assert wire.body(head, to_end=False) == b"part"
        assert wire.head() is None


def test_the_facade_is_found_again_after_its_restart(site: CaddySite) -> None:
    assert site.get().status == 200
    site.facade.stop()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(site.get), pool.submit(site.get, "/x", host=site.platform, method="POST", body=b"{}")]
        site.facade.script = admit
        site.facade.start()
        assert [future.result(15).status for future in waiting] == [200, 200]
    assert site.get().status == 200


def test_a_facade_that_stays_away_is_a_502(site: CaddySite) -> None:
    site.facade.stop()
    try:
        assert site.get().status == 502
        assert site.get("/api/v1/me", host=site.platform).status == 502
    finally:
        site.facade.start()


def test_connections_to_both_ends_are_used_again(site: CaddySite) -> None:
    site.get()
    before = (site.facade.connections, site.session.connections)

    for _ in range(20):
        site.get()

    assert (site.facade.connections - before[0], site.session.connections - before[1]) <= (1, 1)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_connection_that_a_session_closed_meanwhile_costs_no_502(site: CaddySite, method: str) -> None:
    """Servers end idle connections when they like; the next request must not pay for it."""

    def once(request: Message, wire: Wire) -> None:
        answer(200)(request, wire)
        wire.close()

    site.session.script = once

    assert [site.get(method=method, body=b"x" if method in ("POST", "PUT") else b"").status for _ in range(30)] == [
        200
    ] * 30
