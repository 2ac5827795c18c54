"""Client addresses over real sockets, on the event loop that the facade runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from facade.auth.addresses import Addresses

pytestmark = pytest.mark.integration

SPOOFED = {"X-Forwarded-For": "203.0.113.9"}


def ask(addresses: Addresses, listen: Callable[[web.AppRunner], tuple[web.BaseSite, aiohttp.BaseConnector]]) -> str:
    """The address that one request is said to come from."""

    async def tell(request: web.Request) -> web.Response:
        return web.Response(text=str(addresses.of(request)))

    async def once() -> str:
        app = web.Application()
        app.router.add_get("/", tell)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site, connector = listen(runner)
            await site.start()
            port = runner.addresses[0][1] if isinstance(site, web.TCPSite) else 80
            async with (
                aiohttp.ClientSession(connector=connector) as http,
                http.get(f"http://127.0.0.1:{port}/", headers=SPOOFED) as answer,
            ):
                return await answer.text()
        finally:
            await runner.cleanup()

    return on_uvloop(once())


def on_uvloop(work: Coroutine[Any, Any, str]) -> str:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@pytest.mark.parametrize(
    ("trusted", "address"),
    [((), "127.0.0.1"), (("192.0.2.0/24",), "127.0.0.1"), (("127.0.0.0/8",), "203.0.113.9")],
    ids=["nobody", "somebody else", "the peer"],
)
def test_over_tcp_a_peer_is_believed_if_it_is_trusted(trusted: tuple[str, ...], address: str) -> None:
    told = ask(Addresses(trusted), lambda runner: (web.TCPSite(runner, "127.0.0.1", 0), aiohttp.TCPConnector()))
    assert told == address


def test_over_the_unix_socket_the_proxy_is_believed(tmp_path: Path) -> None:
    path = str(tmp_path / "facade.sock")
    told = ask(Addresses(), lambda runner: (web.UnixSite(runner, path), aiohttp.UnixConnector(path)))
    assert told == "203.0.113.9"
