"""Drills on a whole installation: the daemon, the facade and Caddy are killed while people start, use and stop sessions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest

from tests.fixtures.figures import Figure
from tests.host.drills import Ground, agrees, ground_of_installation, unwell
from tests.host.installation import Installation, Visitor, container_of, docker, host_of, inside, until

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.drill_fixtures"]

_SECONDS = 30.0
# Each kill comes so long after people began to start and stop sessions: it hits another step of both.
_DELAYS = (0.1, 0.5, 1.5)
_ENDED = ("stopped", "error")


@asynccontextmanager
async def _people(installation: Installation, number: int) -> AsyncIterator[list[Visitor]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(installation.account()) for _ in range(number)]


async def test_the_daemon_is_killed(installation: Installation, figure: Figure) -> None:
    healthy = []
    async with ground_of_installation(installation) as ground, _people(installation, 7) as people:
        steady, stopping, starting = people[:2], people[2:4], people[4:]
        kept = await asyncio.gather(*(person.create() for person in steady))
        processes = [_process_of(session) for session in kept]
        for session in kept:
            inside(session, "sh", "-c", "echo kept > /workspace/note")
        for delay in _DELAYS:
            old = installation.process("daemon")
            ending = await asyncio.gather(*(person.create() for person in stopping))
            creates = [asyncio.create_task(_try(person.create())) for person in starting]
            stops = [asyncio.create_task(_try(_ask_to_stop(*pair))) for pair in zip(stopping, ending, strict=True)]
            await asyncio.sleep(delay)
            began = time.monotonic()
            os.kill(old, signal.SIGKILL)
            # Those who have a session notice nothing.
            for person, session in zip(steady, kept, strict=True):
                status, _, _ = await person.ask("GET", f"{host_of(session)}/healthz")
                assert status == 200
            await until(partial(_replaced, installation, "daemon", old))
            await until(lambda: _healthy(ground))
            healthy.append(time.monotonic() - began)
            answers = await asyncio.gather(*creates, *stops)
            await _in_order(people)
            await agrees(ground)
            for person, session, answer in zip(stopping, ending, answers[len(creates) :], strict=True):
                # What was accepted is done; what was not may be asked for again.
                if answer is None:
                    await person.stop(session)
                assert (await person.read(session))["status"] == "stopped"
            for person in starting:
                await _stop_current(person)
            assert [_process_of(session) for session in kept] == processes
        await agrees(ground)
    figure("daemon killed until healthy", healthy)
    assert max(healthy) <= _SECONDS


async def test_the_facade_is_killed(installation: Installation, figure: Figure) -> None:
    took = []
    async with ground_of_installation(installation) as ground, _people(installation, 3) as people:
        session = await people[0].create()
        for delay in _DELAYS[:2]:
            creates = [asyncio.create_task(_try(person.create())) for person in people[1:]]
            await asyncio.sleep(delay)
            old = installation.process("facade")
            began = time.monotonic()
            os.kill(old, signal.SIGKILL)
            await until(lambda: _serves(people[0], session))
            took.append(time.monotonic() - began)
            await until(lambda: _well(installation, people[0]))
            await until(partial(_replaced, installation, "facade", old))
            await asyncio.gather(*creates)
            await _in_order(people)
            for person in people[1:]:
                await _stop_current(person)
        await agrees(ground)
    figure("facade killed until a session's page is served", took)
    assert max(took) <= _SECONDS


async def _kill_its_process(installation: Installation) -> None:
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", installation.caddy)), signal.SIGKILL)


async def _kill_its_container(installation: Installation) -> None:
    """Docker takes this for an operator's wish, and leaves it down until somebody brings it up."""
    docker("kill", installation.caddy)
    await asyncio.to_thread(installation.up)


@pytest.mark.parametrize("kill", [_kill_its_process, _kill_its_container], ids=["its process", "its container"])
async def test_caddy_is_killed(
    installation: Installation, alice: Visitor, figure: Figure, kill: Callable[[Installation], Any]
) -> None:
    async with ground_of_installation(installation) as ground:
        session = await alice.create()
        process = _process_of(session)
        began = time.monotonic()
        await kill(installation)
        await until(lambda: _serves(alice, session))
        took = time.monotonic() - began
        figure(f"Caddy killed ({kill.__name__.removeprefix('_kill_')}) until a page is served", took)
        assert took <= 2 * _SECONDS
        assert _process_of(session) == process
        await agrees(ground)
        await alice.stop(session)
        await agrees(ground)


async def _try(call: Any) -> Any:
    """What a call answers; None where it was lost or refused, as it may be while somebody is killed."""
    try:
        return await call
    except (AssertionError, aiohttp.ClientError, json.JSONDecodeError, TimeoutError):
        return None


async def _ask_to_stop(person: Visitor, session: dict[str, Any]) -> str:
    status, text, _ = await person.ask("POST", f"{person.installation.api}/sessions/{session['id']}/stop")
    assert status == 202
    return text


async def _current(person: Visitor) -> dict[str, Any] | None:
    status, text, _ = await person.ask("GET", f"{person.installation.api}/sessions/current")
    assert status == 200, text
    session: dict[str, Any] | None = json.loads(text)["data"]["session"]
    return session


async def _in_order(people: list[Visitor]) -> None:
    """Wait until nobody's session is on its way any more."""

    async def settled() -> bool:
        found = await asyncio.gather(*(_current(person) for person in people))
        return all(session is None or session["status"] == "running" for session in found)

    await until(settled, 30)


async def _stop_current(person: Visitor) -> None:
    session = await _current(person)
    if session is not None:
        assert (await person.stop(session))["status"] == "stopped"


async def _replaced(installation: Installation, name: str, old: int) -> bool:
    return installation.process(name) != old


async def _healthy(ground: Ground) -> bool:
    """As the daemon itself says: the site goes by what it heard last."""
    return not await unwell(ground)


async def _well(installation: Installation, person: Visitor) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        status, _, _ = await person.ask("GET", installation.api.replace("/api/v1", "/healthz"))
        return status == 200
    return False


async def _serves(person: Visitor, session: dict[str, Any]) -> bool:
    with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
        status, _, _ = await person.ask("GET", f"{host_of(session)}/healthz")
        return status == 200
    return False


def _process_of(session: dict[str, Any]) -> int:
    return int(docker("inspect", "--format", "{{.State.Pid}}", container_of(session)))
