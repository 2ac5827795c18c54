"""Restarts without notice: whoever works or asks meanwhile sees a pause at the most."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.host.installation import Installation, Visitor, host_of, until

pytestmark = pytest.mark.host

_RESTARTS = 12


@asynccontextmanager
async def websocket(person: Visitor, session: dict[str, Any]) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """The IDE's own management connection, through Caddy."""
    query = f"reconnectionToken={uuid4()}&reconnection=false&skipWebSocketFrames=false"
    quality, url = await _quality(person, session), host_of(session).replace("https", "wss")
    async with person.http.ws_connect(
        f"{url}/{quality}?{query}",
        headers={"Cookie": f"medforge_session={person.cookie}", "Origin": host_of(session)},
        timeout=aiohttp.ClientWSTimeout(ws_close=0.1),
    ) as opened:
        yield opened


async def is_open(opened: aiohttp.ClientWebSocketResponse) -> bool:
    """Whether it is still the connection that it was: nobody has closed it, and nobody does for a frame."""
    await opened.ping()
    try:
        message = await opened.receive(timeout=0.5)
    except TimeoutError:
        return not opened.closed
    return message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT)


async def test_a_facade_that_is_restarted_under_load_refuses_nobody(installation: Installation, alice: Visitor) -> None:
    session = await alice.create()
    statuses: list[int] = []
    done = asyncio.Event()

    async def ask(url: str) -> None:
        while not done.is_set():
            status, _, _ = await alice.ask("GET", url)
            statuses.append(status)

    async with websocket(alice, session) as opened:
        asking = [
            asyncio.create_task(ask(url))
            for url in (f"{host_of(session)}/healthz", f"{installation.api}/me", f"{installation.origin}/") * 2
        ]
        for _ in range(_RESTARTS):
            before = installation.process("facade")
            os.kill(installation.keeper("facade"), signal.SIGHUP)
            await until(partial(_replaced, installation, "facade", before))
            await until(partial(_more, statuses, len(statuses) + 20))
        done.set()
        await asyncio.gather(*asking)
        assert await is_open(opened)
    assert len(statuses) > 20 * _RESTARTS
    assert set(statuses) == {200}


async def test_sessions_are_open_to_their_owners_while_the_daemon_is_away(
    installation: Installation, alice: Visitor, bob: Visitor
) -> None:
    session = await alice.create()
    async with websocket(alice, session) as opened:
        before, keeper = installation.process("daemon"), installation.keeper("daemon")
        # The keeper cannot start another one until it is let go on.
        os.kill(keeper, signal.SIGSTOP)
        try:
            os.kill(before, signal.SIGKILL)
            for _ in range(20):
                status, _, _ = await alice.ask("GET", f"{host_of(session)}/healthz")
                assert status == 200
            status, _, _ = await bob.ask("GET", f"{host_of(session)}/healthz")
            assert status == 403
            waiting = asyncio.create_task(alice.read(session))
        finally:
            os.kill(keeper, signal.SIGCONT)
        # What was asked of a daemon that was not there is answered by the next one.
        assert (await waiting)["status"] == "running"
        await until(lambda: _replaced(installation, "daemon", before))
        assert await is_open(opened)
    other = await bob.create()
    assert (await bob.stop(other))["status"] == "stopped"
    assert (await alice.stop(session))["status"] == "stopped"


async def _replaced(installation: Installation, name: str, before: int) -> bool:
    return installation.process(name) != before


async def _more(statuses: list[int], number: int) -> bool:
    return len(statuses) > number


async def _quality(person: Visitor, session: dict[str, Any]) -> str:
    """The first part of the IDE's websocket's path, which its page names."""
    status, page, _ = await person.ask("GET", f"{host_of(session)}/?folder=/workspace")
    assert status == 200
    (quality,) = set(re.findall(r"/?(stable-[0-9a-f]{40})/", page))
    return str(quality)
