"""Owns the floor of `ops/bench proxy`: a bare handler of aiohttp that returns the facade's bytes, and knows nothing.

    bare_proxy.py LISTENS-AT WORKERS HEADERS

`HEADERS`: those of the answer as a JSON object, without what aiohttp adds by itself.

`web.Application` with one route on uvloop, without middleware and access log. Several workers are forked behind one
socket, as the facade's are.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import uvloop
from aiohttp import web

PATH = "/api/v1/auth/session-proxy"


async def serve(listener: socket.socket, headers: dict[str, str]) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(headers=headers)

    app = web.Application()
    app.router.add_get(PATH, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=1024).start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await runner.cleanup()


def main(listens_at: str, workers: int, headers: dict[str, str]) -> None:
    if "/" in listens_at:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(listens_at)
        Path(listens_at).chmod(0o666)
    else:
        host, _, port = listens_at.rpartition(":")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
    listener.listen(1024)
    listener.setblocking(False)
    children = []
    for _ in range(workers if workers > 1 else 0):
        child = os.fork()
        if child == 0:
            uvloop.run(serve(listener, headers))
            os._exit(0)
        children.append(child)
    if not children:
        uvloop.run(serve(listener, headers))
        return
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGTERM) for child in children])
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
