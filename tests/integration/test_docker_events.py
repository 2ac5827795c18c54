"""Owns the tests of the Docker adapter's event stream against an engine that tells nonsense, too much, or is lost."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from medforged.adapters.docker import DockerRuntime
from medforged.adapters.docker.streams import MAX_LINE_BYTES, MAX_WAITING_EVENTS, EventStream
from medforged.domain.containers import ContainerEvent, ContainerEventKind
from medforged.domain.errors import ContainerUnavailable
from tests.fakes.waiting import until
from tests.integration.fake_engine import FakeEngine

pytestmark = [
    pytest.mark.integration,
    # docker-py leaves a socket that could not be connected to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

IMAGE = f"sha256:{'ab' * 32}"
SESSION = UUID("6f1c1d0e-0000-4000-8000-000000000001")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What this module leaves to the garbage collector is collected while its warnings are expected."""
    yield
    gc.collect()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(tmp_path / "docker.sock")
    engine.answers["GET /_ping"] = (200, "OK")
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def runtime(engine: FakeEngine) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(socket=engine.socket, threads=3, question_seconds=0.5, action_seconds=0.5)
    yield runtime
    engine.release()
    await runtime.close()
    await until(lambda: not readers())


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "docker-events"]


def told(name: str, action: str = "die", **attributes: str) -> dict[str, Any]:
    """What an engine tells of a container of ours."""
    labels = {"dev.medforge.instance": "medforge", "dev.medforge.image": IMAGE, "dev.medforge.session": str(SESSION)}
    actor = {"ID": "1", "Attributes": {**labels, "image": IMAGE, "name": name, **attributes}}
    return {"Type": "container", "Action": action, "Actor": actor, "time": 1, "timeNano": 1}


def death(name: str) -> ContainerEvent:
    return ContainerEvent(ContainerEventKind.DIE, name, SESSION)


async def test_events_arrive_in_their_order(engine: FakeEngine, runtime: DockerRuntime) -> None:
    network = {"Type": "network", "Action": "connect", "Actor": {"Attributes": {"name": "n", "type": "bridge"}}}
    async with runtime.subscribe() as events:
        await until(lambda: engine.listeners == 1)
        engine.happen(told("one"), network, told("two", "oom"))

        assert [await anext(events) for _ in range(3)] == [
            death("one"),
            ContainerEvent(ContainerEventKind.NETWORK, "n"),
            ContainerEvent(ContainerEventKind.OOM, "two", SESSION),
        ]
        assert engine.requests[-1] == "GET /events"


async def test_what_happens_before_the_engine_listens_is_not_missed(engine: FakeEngine, runtime: DockerRuntime) -> None:
    engine.happen(told("long ago"), at=time.time() - 60)
    engine.let_nobody_listen()
    async with runtime.subscribe() as events:  # the headers are there
        engine.happen(told("between"))
        assert engine.listeners == 0
        engine.let_listen()

        assert await anext(events) == death("between")


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_lines_may_come_in_any_pieces(engine: FakeEngine, runtime: DockerRuntime, size: int) -> None:
    whole = b"".join(json.dumps(told(f"ü{number}")).encode() + b"\r\n\n" for number in range(20))
    async with runtime.subscribe() as events:
        await until(lambda: engine.listeners == 1)
        engine.happen(*(whole[at : at + size] for at in range(0, len(whole), size)))

        assert [await anext(events) for _ in range(20)] == [death(f"ü{number}") for number in range(20)]


async def test_nonsense_is_skipped_and_told_to_the_journal(engine: FakeEngine, runtime: DockerRuntime) -> None:
    nonsense = [b"nonsense\n", b"[]\n", b"\xff\n", b"{}\n", told("", "die"), b"{" * MAX_LINE_BYTES * 2 + b"\n"]
    with capture_logs() as logs:
        async with runtime.subscribe() as events:
            await until(lambda: engine.listeners == 1)
            engine.happen(*nonsense, told("foreign", **{"dev.medforge.instance": "another"}), told("one"))

            assert await anext(events) == death("one")

    skipped = [entry for entry in logs if entry["event"] == "container.event.skipped"]
    assert len(skipped) == len(nonsense) + 1  # the last one in two pieces
    assert {entry["log_level"] for entry in skipped} == {"warning"}
    assert "makes no sense" in skipped[0]["error"]


async def test_silence_is_no_loss(engine: FakeEngine, runtime: DockerRuntime) -> None:
    async with runtime.subscribe() as events:
        await until(lambda: engine.listeners == 1)
        with pytest.raises(TimeoutError):  # longer than the limit of a question
            await asyncio.wait_for(anext(events), 1.0)
        engine.happen(told("one"))

        assert await anext(events) == death("one")


async def test_stream_that_is_cut_ends_the_iteration_at_once(engine: FakeEngine, runtime: DockerRuntime) -> None:
    async with runtime.subscribe() as events:
        await until(lambda: engine.listeners == 1)
        engine.happen(told("one"))
        assert await anext(events) == death("one")
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        began = time.perf_counter()

        engine.cut()

        with pytest.raises(ContainerUnavailable, match=r"has ended the stream; see `systemctl status docker`"):
            await waiting
        assert time.perf_counter() - began < 1
        for _ in range(2):
            with pytest.raises(ContainerUnavailable):
                await anext(events)
        assert not readers()


async def test_what_was_told_before_a_loss_is_still_read(engine: FakeEngine, runtime: DockerRuntime) -> None:
    async with runtime.subscribe() as events:
        await until(lambda: engine.listeners == 1)
        engine.happen(told("one"), told("two"), b'{"Type": "container", "Act')
        assert await anext(events) == death("one")  # the others are written with it

        await engine.stop()

        assert await anext(events) == death("two")
        with pytest.raises(ContainerUnavailable, match="has ended the stream"):
            await anext(events)


async def test_every_subscription_ends_with_the_engine_and_another_can_be_made(
    engine: FakeEngine, runtime: DockerRuntime
) -> None:
    async with runtime.subscribe() as one, runtime.subscribe() as two:
        await until(lambda: engine.listeners == 2)
        await engine.stop()
        for events in (one, two):
            with pytest.raises(ContainerUnavailable):
                await anext(events)
    with pytest.raises(ContainerUnavailable, match="nothing listens at"):
        async with runtime.subscribe():
            pass

    await engine.start()
    async with runtime.subscribe() as events:
        engine.happen(told("again"))
        assert await anext(events) == death("again")


async def test_reader_that_is_too_slow_is_told_to_list_anew(engine: FakeEngine, runtime: DockerRuntime) -> None:
    async with runtime.subscribe() as events:
        await until(lambda: engine.listeners == 1)
        engine.happen(*(told(f"{number}") for number in range(MAX_WAITING_EVENTS + 1)))
        await until(lambda: not readers())

        with pytest.raises(ContainerUnavailable, match=rf"{MAX_WAITING_EVENTS} events wait"):
            await anext(events)
        await until(lambda: engine.listeners == 0)


async def test_reader_that_is_just_quick_enough(engine: FakeEngine, runtime: DockerRuntime) -> None:
    async with runtime.subscribe() as events:
        await until(lambda: engine.listeners == 1)
        engine.happen(*(told(f"{number}") for number in range(MAX_WAITING_EVENTS)), b"nonsense\n")
        with capture_logs() as logs:
            await until(lambda: bool(logs))  # they have all been read by the thread

        assert [(await anext(events)).name for _ in range(MAX_WAITING_EVENTS)] == [
            f"{number}" for number in range(MAX_WAITING_EVENTS)
        ]
        engine.happen(told("more"))
        assert await anext(events) == death("more")


async def test_leaving_ends_the_thread_and_the_connection(engine: FakeEngine, runtime: DockerRuntime) -> None:
    async with runtime.subscribe() as events:
        await until(lambda: engine.listeners == 1)
        assert len(readers()) == 1
        engine.happen(told("unread"))

    assert [event async for event in events] == []
    await until(lambda: not readers())
    await until(lambda: engine.listeners == 0)


async def test_leaving_by_an_error_or_a_cancellation_ends_it_too(engine: FakeEngine, runtime: DockerRuntime) -> None:
    async def follow() -> None:
        async with runtime.subscribe() as events:
            async for event in events:
                raise ValueError(event.name)

    failing = asyncio.create_task(follow())
    await until(lambda: engine.listeners == 1)
    engine.happen(told("one"))
    with pytest.raises(ValueError, match="one"):
        await failing
    await until(lambda: not readers() and engine.listeners == 0)
    engine.let_nobody_listen()
    cancelled = asyncio.create_task(follow())
    await until(lambda: len(readers()) == 1)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await until(lambda: not readers())
    engine.let_listen()


@pytest.mark.parametrize("closing", [True, False])
def test_loop_may_end_in_the_middle_of_it(tmp_path: Path, closing: bool) -> None:
    program = f"""
import asyncio, pathlib, sys, threading
from medforged.adapters.docker import DockerRuntime
from tests.integration.fake_engine import FakeEngine
async def follow(runtime, followed):
    async with runtime.subscribe() as events:
        followed.set()
        async for event in events:
            pass
async def main():
    engine = FakeEngine(pathlib.Path({str(tmp_path / "docker.sock")!r}))
    engine.answers["GET /_ping"] = (200, "OK")
    await engine.start()
    runtime, followed = DockerRuntime(socket=engine.socket), asyncio.Event()
    global task
    task = asyncio.create_task(follow(runtime, followed))
    await followed.wait()
    print("followed")
    if {closing}:
        await runtime.close()
        try:
            await task
        except Exception as error:
            print(error)
asyncio.run(main())
print([thread.name for thread in threading.enumerate() if thread.name == "docker-events" and thread.join(5) is None and thread.is_alive()])
"""
    ended = subprocess.run(
        # The engine of this program is left open, its end of the connections with it.
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    closed = ["cannot follow the containers: the container adapter has been closed"] if closing else []
    assert (ended.stdout.splitlines(), ended.stderr) == (["followed", *closed, "[]"], "")


def test_process_can_end_although_its_loop_was_left_without_a_word(tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib
from medforged.adapters.docker.streams import EventStream
loop = asyncio.new_event_loop()
async def open_one():
    stream = EventStream(pathlib.Path({str(tmp_path / "docker.sock")!r}), "/events", lambda line: None, seconds=600)
    opening = asyncio.ensure_future(stream.open())
    await asyncio.sleep(0.2)
    return opening
opening = loop.run_until_complete(open_one())
print("left")
"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "docker.sock"))
        listening.listen()  # and nobody answers

        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=True)

    assert ended.stdout == b"left\n"


async def test_closing_the_runtime_ends_every_subscription(engine: FakeEngine, runtime: DockerRuntime) -> None:
    async with runtime.subscribe() as one, runtime.subscribe() as two:
        waiting = asyncio.ensure_future(anext(one))
        await asyncio.sleep(0)

        await runtime.close()

        for reading in (waiting, anext(two)):
            with pytest.raises(ContainerUnavailable, match=r"cannot follow the containers: .* has been closed"):
                await reading
    with pytest.raises(ContainerUnavailable, match="has been closed"):
        async with runtime.subscribe():
            pass
    await until(lambda: not readers())


async def test_runtime_that_is_closed_while_somebody_subscribes(engine: FakeEngine, runtime: DockerRuntime) -> None:
    engine.hang("GET /_ping")

    async def follow() -> None:
        async with runtime.subscribe():
            pass

    following = asyncio.create_task(follow())
    await engine.arrived(lambda line: line == "GET /_ping")
    closing = asyncio.create_task(runtime.close())
    await asyncio.sleep(0)
    engine.release()

    with pytest.raises(ContainerUnavailable):
        await following
    await closing
    assert "GET /events" not in engine.requests


@pytest.mark.parametrize("pattern", ["GET /_ping", "GET /events"])
async def test_engine_that_does_not_answer(engine: FakeEngine, runtime: DockerRuntime, pattern: str) -> None:
    engine.hang(pattern)
    began = time.perf_counter()

    with pytest.raises(ContainerUnavailable, match="did not answer"):
        async with runtime.subscribe():
            pass

    assert time.perf_counter() - began < 2.5
    engine.release()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((503, {"message": "shutting\ndown"}), r"refused it \(503\): .*shutting.*down"),
        ((400, b"x" * 10_000), r"refused it \(400\): x{400};"),
        ((404, {"message": "page not found"}), r"refused it \(404\)"),
        ((200, b""), "has ended the stream"),
        ((200, b"nonsense"), "has ended the stream"),
    ],
)
async def test_engine_that_has_no_events(
    engine: FakeEngine, runtime: DockerRuntime, answer: tuple[int, Any], words: str
) -> None:
    engine.answers["GET /events"] = answer

    with pytest.raises(ContainerUnavailable, match=rf"cannot follow the containers: .*{words}"):
        async with runtime.subscribe() as events:
            await anext(events)


@pytest.mark.parametrize("said", [b"", b"\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n", b"\0" * 100_000])
async def test_something_else_than_an_engine(tmp_path: Path, said: bytes) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    async with await asyncio.start_unix_server(speak, tmp_path / "docker.sock"):
        stream = EventStream(tmp_path / "docker.sock", "/events", lambda _: None, seconds=2)

        async def follow() -> None:
            await stream.open()
            await anext(stream)

        with pytest.raises(ContainerUnavailable, match="cannot follow the containers"):
            await follow()


async def test_two_subscriptions_are_independent(engine: FakeEngine, runtime: DockerRuntime) -> None:
    async with runtime.subscribe() as one:
        async with runtime.subscribe() as two:
            await until(lambda: engine.listeners == 2)
            engine.happen(told("one"))
            assert await anext(one) == await anext(two) == death("one")
        engine.happen(told("two"))
        assert await anext(one) == death("two")
