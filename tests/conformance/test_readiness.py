"""Owns the conformance suite of the `readiness` port: fake, simulated and TCP behave alike."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from typing import Protocol

import pytest

from medforged.adapters.simulated.readiness import SimulatedReadiness
from medforged.adapters.tcp import TcpReadiness
from medforged.domain.errors import NotReady
from medforged.ports.readiness import ReadinessProbe
from tests.fakes.readiness import FakeReadiness

ADDRESS = IPv4Address("127.0.0.1")


class World(Protocol):
    """A probe and the IDE that it asks, which is silent at first."""

    probe: ReadinessProbe
    port: int

    async def answer(self) -> None:
        """Let the IDE answer from now on."""
        ...

    def give_up(self) -> None:
        """Let the timeout of a fake that knows no time be over."""
        ...


class FakeWorld:
    port = 8080

    def __init__(self) -> None:
        self.probe = FakeReadiness()
        self.probe.answering.clear()

    async def answer(self) -> None:
        self.probe.answering.set()

    def give_up(self) -> None:
        self.probe.give_up()


class SimulatedWorld:
    port = 8080

    def __init__(self) -> None:
        self.probe = SimulatedReadiness()
        self.probe.silence(ADDRESS)

    async def answer(self) -> None:
        self.probe.answer(ADDRESS)

    def give_up(self) -> None:
        pass


class TcpWorld:
    def __init__(self) -> None:
        self.probe = TcpReadiness()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.bind((str(ADDRESS), 0))  # not listening yet: connections are refused
        self.port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None

    async def answer(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._socket)

    def give_up(self) -> None:
        pass

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self._socket.close()


@pytest.fixture(
    params=[
        pytest.param("fake", marks=pytest.mark.unit),
        pytest.param("simulated", marks=pytest.mark.unit),
        pytest.param("tcp", marks=pytest.mark.integration),
    ]
)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "tcp":
        tcp = TcpWorld()
        yield tcp
        await tcp.close()
    else:
        yield FakeWorld() if request.param == "fake" else SimulatedWorld()


async def test_ide_that_answers_is_ready(world: World) -> None:
    await world.answer()

    await asyncio.gather(*(world.probe.wait(ADDRESS, world.port, 20) for _ in range(5)))


async def test_ide_that_does_not_answer_is_not_ready_after_the_timeout(world: World) -> None:
    waiting = asyncio.create_task(world.probe.wait(ADDRESS, world.port, 0.05))
    await asyncio.sleep(0)
    world.give_up()

    with pytest.raises(NotReady, match=rf"cannot reach the IDE at 127\.0\.0\.1:{world.port}: .*within 0\.05 s"):
        await waiting


async def test_wait_can_be_cancelled_and_begun_again(world: World) -> None:
    waiting = asyncio.create_task(world.probe.wait(ADDRESS, world.port, 20))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await world.answer()

    await world.probe.wait(ADDRESS, world.port, 20)
