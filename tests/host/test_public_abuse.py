"""Whoever takes connections, time or memory of the public face: others are served, and nobody else is cut off."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.caddy_site import Message, Wire, docker
from tests.host.public_wire import connect
from tests.host.public_world import World, welcome, world
from tests.host.test_caddy_streams import KEY, accept, frame, read_frame

pytestmark = pytest.mark.host

# Without TLS, and with; as an authority run with MEDFORGE_IDLE_HANDSHAKES=10000 all of them with.
IDLE = 10_000
HANDSHAKES = int(os.environ.get("MEDFORGE_IDLE_HANDSHAKES", "500"))
SLOW = 150
# What a connection may cost Caddy; with TLS it is about 50 KiB.
CONNECTION_MAX_BYTES = 128 * 1024
BODY_SECONDS = 2.0


@pytest.fixture(scope="module")
def public() -> Iterator[World]:
    with world(body_seconds=BODY_SECONDS) as made:
        for recorder in made.recorders.values():
            recorder.script = tenant
        yield made


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + HANDSHAKES + 5000
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, before[1])))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def tenant(request: Message, wire: Wire) -> None:
    """A websocket that sends every message back, or an ordinary answer."""
    if (request.value("Upgrade") or "") != "websocket":
        return welcome(request, wire)
    wire.send(accept(request))
    while True:
        wire.send(frame(*read_frame(wire)))


def open_(public: World, head: str, body: bytes = b"") -> Wire:
    """A connection that has sent this much."""
    wire = Wire(connect(public.site, "http/1.1"))
    wire.send(head.replace("\n", "\r\n").encode() + body)
    return wire


def session(public: World, method: str, *lines: str) -> str:
    host = f"s-{public.sessions['ada']}.medforge.localhost:{public.site.port}"
    cookie = f"Cookie: medforge_session={public.tokens['ada']}"
    return "\n".join([f"{method} / HTTP/1.1", f"Host: {host}", cookie, *lines, "", ""])


def login(public: World, *lines: str) -> str:
    host = f"Host: {public.site.platform}"
    return "\n".join(["POST /api/v1/auth/login HTTP/1.1", host, "Content-Type: application/json", *lines, "", ""])


def assert_others_are_served(public: World) -> None:
    with contextlib.closing(open_(public, session(public, "GET"))) as wire:
        head = wire.head()
        assert head is not None
        assert head.status == 200
    assert public.site.get("/login", host=public.site.platform).status == 200


def memory(public: World) -> int:
    """Resident bytes of Caddy."""
    pid = docker("container", "inspect", "--format", "{{.State.Pid}}", public.site.environment["MEDFORGE_CADDY_NAME"])
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("many_descriptors")
def test_others_are_served_while_connections_do_nothing_or_next_to_nothing(public: World) -> None:
    """Slow headers and slow bodies end; an idle websocket and an upload that takes as long as those do not."""
    with contextlib.ExitStack() as stack:
        websocket = stack.enter_context(contextlib.closing(open_(public, session(public, "GET", *_websocket(public)))))
        opened = websocket.head()
        assert opened is not None
        assert opened.status == 101
        upload = open_(public, session(public, "PUT", "Content-Length: 3"), b"a")
        stack.callback(upload.close)

        before = memory(public)
        address = (public.site.environment["MEDFORGE_CADDY_ADDRESS"], 8443)
        for _ in range(IDLE):
            stack.enter_context(contextlib.closing(socket.create_connection(address, 30)))
        assert_others_are_served(public)
        for _ in range(HANDSHAKES):
            stack.enter_context(contextlib.closing(connect(public.site, "http/1.1")))
        assert_others_are_served(public)
        each = (memory(public) - before) / (IDLE + HANDSHAKES)
        print(f"{each / 1024:.0f} KiB of Caddy for each of {IDLE} idle connections and {HANDSHAKES} with TLS")
        assert each < CONNECTION_MAX_BYTES

        slow = [open_(public, "GET / HTTP/1.1\nHost: x\nX-Slow: ") for _ in range(SLOW)]
        bodies = [open_(public, login(public, "Content-Length: 4000"), b"{") for _ in range(SLOW)]
        uploads = [open_(public, session(public, "PUT", "Content-Length: 4000"), b"{") for _ in range(SLOW // 3)]
        for wire in (*slow, *bodies, *uploads):
            stack.callback(wire.close)
        waiting = list(slow)
        while waiting:
            waiting = [wire for wire in waiting if not ended(wire)]
            for wire in (*waiting, *uploads):
                with contextlib.suppress(OSError):
                    wire.send(b"a")
            assert_others_are_served(public)
        # Those were given up long ago. Caddy says so when the rest of the body is there: until then it costs Caddy alone.
        for wire in bodies:
            wire.send(b"a" * 3999)
            head = wire.head()
            assert head is not None
            assert head.status == 408

        upload.send(b"bc")
        done = upload.head()
        assert done is not None
        assert done.status == 200
        websocket.send(frame(1, b"still here", mask=b"mask"))
        assert read_frame(websocket) == (1, b"still here")
    assert_others_are_served(public)


def _websocket(public: World) -> tuple[str, ...]:
    origin = f"https://s-{public.sessions['ada']}.medforge.localhost:{public.site.port}"
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    return (*upgrade, f"Sec-WebSocket-Key: {KEY}", f"Origin: {origin}")


def ended(wire: Wire) -> bool:
    """Whether the other end has closed the connection, told without waiting for it."""
    wire.sock.settimeout(0.01)
    try:
        while True:
            if not wire.sock.recv(4096):
                return True
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        with contextlib.suppress(OSError):
            wire.sock.settimeout(20)


def test_huge_headers_cost_whoever_sends_them(public: World) -> None:
    """As large as a browser can make them they pass; beyond that they are refused, and leave nothing behind."""
    large = session(public, "GET", *(f"X-{number}: {'a' * 7000}" for number in range(8)))
    huge = session(public, "GET", f"X-A: {'a' * 1_000_000}")
    many = session(public, "GET", *(f"X-{number}: a" for number in range(20_000)))
    for head, allowed in ((large, {200}), (huge, {431, None}), (many, {431, None})):
        for _ in range(30):
            wire = None
            try:
                wire = open_(public, head)
                answered = wire.head()
            except OSError:  # it has been refused before all of it was sent
                answered = None
            finally:
                if wire is not None:
                    wire.close()
            assert (answered.status if answered is not None else None) in allowed
    assert_others_are_served(public)


def test_requests_that_come_all_at_once_are_all_answered(public: World) -> None:
    """On connections of their own, all sent before the first answer is read."""
    wires = [open_(public, session(public, "GET", "Connection: close")[:-1]) for _ in range(60)]
    try:
        for wire in wires:
            wire.send(b"\r\n")
        heads = [wire.head() for wire in wires]
    finally:
        for wire in wires:
            wire.close()
    assert [head.status if head is not None else None for head in heads] == [200] * len(wires)
