"""Owns the tests of the readiness probe against programs that are slow, strange or hostile."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address

import pytest

from medforged.adapters.tcp import TcpReadiness
from medforged.domain.errors import NotReady
from tests.fixtures.descriptors import open_files

pytestmark = pytest.mark.integration

ADDRESS = IPv4Address("127.0.0.1")
LIMIT_SECONDS = 30.0
Program = Callable[[socket.socket], None]


@contextmanager
def bound() -> Iterator[socket.socket]:
    """A socket that has a port and does not listen yet."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind((str(ADDRESS), 0))
        yield listening


@contextmanager
def answering(listening: socket.socket, program: Program) -> Iterator[int]:
    """Treat every connection with this program, on a thread of its own, until the block ends."""
    connections, threads = list[socket.socket](), list[threading.Thread]()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError):
            program(connection)
        connection.close()

    def accept() -> None:
        with suppress(OSError):  # which is how it ends
            while True:
                connection, _ = listening.accept()
                connection.settimeout(LIMIT_SECONDS)
                connections.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    listening.listen()
    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


@contextmanager
def serving(program: Program) -> Iterator[int]:
    with bound() as listening, answering(listening, program) as port:
        yield port


def request_on(connection: socket.socket) -> bytes:
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        said += connection.recv(1) or b"\r\n\r\n"
    return said


def says_nothing(connection: socket.socket) -> None:
    """Stay connected until the other side, or the test, ends it."""
    while connection.recv(4096):
        pass


def closes(connection: socket.socket) -> None:
    request_on(connection)


def resets(connection: socket.socket) -> None:
    request_on(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drips(connection: socket.socket) -> None:
    connection.sendall(b"HTT")
    says_nothing(connection)


def floods(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"\0" * 65536)


def speaks_ssh(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    says_nothing(connection)


def speaks_another_http(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/2 200\r\n\r\n")


async def test_port_that_opens_later_is_noticed() -> None:
    def program(connection: socket.socket) -> None:
        request_on(connection)
        connection.sendall(b"HTTP/1.1 503 Not yet\r\n\r\n")

    with bound() as listening:
        waiting = asyncio.create_task(TcpReadiness().wait(ADDRESS, listening.getsockname()[1], LIMIT_SECONDS))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not waiting.done()

        with answering(listening, program):
            await waiting


async def test_request_is_the_same_for_everybody_and_any_status_will_do() -> None:
    seen = []

    def program(connection: socket.socket) -> None:
        seen.append(request_on(connection))
        connection.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")

    with serving(program) as port:
        await TcpReadiness().wait(ADDRESS, port, LIMIT_SECONDS)

    assert seen == [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"]


async def test_answer_that_comes_byte_by_byte_is_an_answer() -> None:
    def program(connection: socket.socket) -> None:
        request_on(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"HTTP/1.1 200 OK\r\n\r\n":
            connection.sendall(bytes([byte]))

    with serving(program) as port:
        await TcpReadiness().wait(ADDRESS, port, LIMIT_SECONDS)


async def test_backlog_of_a_program_that_has_not_begun_to_answer_is_not_readiness() -> None:
    with bound() as listening:
        listening.listen()

        with pytest.raises(NotReady, match="nothing came back"):
            await TcpReadiness().wait(ADDRESS, listening.getsockname()[1], 0.1)


async def test_program_that_loses_its_first_connection_is_asked_again() -> None:
    connections = []

    def program(connection: socket.socket) -> None:
        connections.append(connection)
        if len(connections) == 1:
            says_nothing(connection)
        request_on(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with serving(program) as port:
        await TcpReadiness().wait(ADDRESS, port, LIMIT_SECONDS)

    assert len(connections) == 2


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (closes, "closed the connection without an answer"),
        (resets, "connection reset by peer"),
        (drips, "nothing came back"),
        (floods, "not HTTP"),
        (speaks_ssh, "not HTTP"),
        (speaks_another_http, "not HTTP"),
    ],
)
async def test_program_that_does_not_speak_http_is_not_ready(program: Program, reason: str) -> None:
    loop = asyncio.get_running_loop()
    with serving(program) as port:
        began = loop.time()
        with pytest.raises(NotReady, match=reason):
            await TcpReadiness().wait(ADDRESS, port, 0.15)
        took = loop.time() - began

    assert took < 1.0


async def test_closed_port_says_so() -> None:
    with bound() as listening, pytest.raises(NotReady, match="connection refused"):
        await TcpReadiness().wait(ADDRESS, listening.getsockname()[1], 0.05)


async def test_probes_leave_no_sockets_behind() -> None:
    before = open_files()
    with bound() as listening:
        port = listening.getsockname()[1]
        await asyncio.gather(*(TcpReadiness().wait(ADDRESS, port, 0.05) for _ in range(20)), return_exceptions=True)

    assert open_files() - before == Counter()
