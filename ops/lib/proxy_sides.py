"""Owns the servers that `ops/bench proxy` asks: the facade's program, a bare handler of aiohttp, and Caddy on either.

Each is a process of its own on loopback or on a Unix socket, and gone when its context is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from common import ROOT, Failure
from proxy_world import DOMAIN, Visitors, a_daemon, host_of

PATH = "/api/v1/auth/session-proxy"
_START_SECONDS = 120.0
# Cookies in one header, of which each is looked up: fewer than a header may hold.
_WARM_AT_ONCE = 900


@dataclass(frozen=True)
class Side:
    """A server to ask: where, and the processes whose time it takes."""

    name: str
    url: str
    pids: tuple[int, ...]

    def seconds(self) -> float:
        """Processor time so far."""
        ticks = 0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def a_facade(directory: Path, visitors: Visitors, workers: int, listens_at: str) -> AsyncIterator[Side]:
    """The program itself, which has seen every session and every cookie."""
    directory.mkdir(exist_ok=True)
    config = directory / f"facade-{workers}.toml"
    listen = f"socket = {json.dumps(listens_at)}" if "/" in listens_at else f"tcp = {json.dumps(listens_at)}"
    config.write_text(
        f'[site]\ndomain = "{DOMAIN}"\nweb_root = ""\n[listen]\n{listen}\n'
        f'[database]\nurl = "sqlite+aiosqlite:///{directory / "facade.db"}"\n'
        f'[daemon]\nsocket = "{directory / "medforged.sock"}"\n'
        f'[process]\nallow_privileged = true\nlog_format = "json"\nworkers = {workers}\n'
    )
    argv = [ROOT / ".venv" / "bin" / "medforge-facade", "--config", config]
    async with (
        a_daemon(directory / "medforged.sock", visitors.sessions),
        _running(argv, directory / f"facade-{workers}.log", listens_at) as pid,
    ):
        pids = await _workers(pid, workers)
        await _warm(listens_at, visitors, workers)
        yield Side("facade", _url(listens_at), pids)


@asynccontextmanager
async def a_bare_handler(
    directory: Path, headers: dict[str, str], workers: int, listens_at: str
) -> AsyncIterator[Side]:
    """Answers everything with these headers."""
    argv = [sys.executable, ROOT / "ops" / "lib" / "bare_proxy.py", listens_at, str(workers), json.dumps(headers)]
    async with _running(argv, directory / f"bare-{workers}.log", listens_at) as pid:
        yield Side("bare", _url(listens_at), await _workers(pid, workers))


@asynccontextmanager
async def a_caddy(directory: Path, name: str, behind: Side, listens_at: str, socket_path: str) -> AsyncIterator[Side]:
    """The product's own Caddyfile, whose sessions are an empty answer of Caddy itself."""
    home = directory / f"caddy-{name}"
    home.mkdir()
    caddyfile = home / "Caddyfile"
    caddyfile.write_text(of_the_bench((ROOT / "deploy/caddy/Caddyfile").read_text(), listens_at, socket_path))
    argv = ["caddy", "run", "--config", caddyfile, "--adapter", "caddyfile"]
    environ = {"HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    async with _running(argv, home / "log", listens_at, environ) as pid:
        await _until_certified(listens_at)
        yield Side(f"caddy + {name}", f"https://localhost:{listens_at.rpartition(':')[2]}", (pid, *behind.pids))


async def _until_certified(listens_at: str) -> None:
    """Caddy accepts before it has made its certificate, and breaks off whoever comes in between."""
    host, _, port = listens_at.rpartition(":")
    # Its authority is one of its own, which nobody here trusts.
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname="localhost")
        except OSError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise Failure(f"caddy has no certificate: {error}") from error
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def of_the_bench(caddyfile: str, listens_at: str, socket_path: str) -> str:
    """The Caddyfile with other ports and another socket, and without the way to a session's container."""
    port = listens_at.rpartition(":")[2]
    changed = caddyfile.replace("unix//run/medforge-facade/facade.sock", f"unix/{socket_path}")
    changed = re.sub(r"https_port \d+", f"https_port {port}", changed)
    changed = re.sub(r"http_port \d+", f"http_port {free_port()}", changed)
    # The sites of the redirect to https, which is not asked; and the site of every other name.
    changed = re.sub(r"\n(?:http://[^\n]*) \{\n.*?\n\}\n", "\n", changed, flags=re.DOTALL)
    changed = re.sub(r"\n:\d+ \{", f"\n:{port} {{", changed)
    found = re.search(r"\n(\t+)reverse_proxy mf-session-.*?\n\1\}\n", changed, flags=re.DOTALL)
    if found is None or changed.count("unix//") < 2:
        raise Failure("deploy/caddy/Caddyfile has changed: `ops/lib/proxy_sides.py` does not find its parts any more")
    # The generator names in TLS the host that it connects to, and needs a certificate for it.
    local = "\nlocalhost {\n\ttls internal\n\trespond 404\n}\n"
    return changed[: found.start()] + f"\n{found[1]}respond 200\n" + changed[found.end() :] + local


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def _url(listens_at: str) -> str:
    return f"http://{listens_at}" if "/" not in listens_at else listens_at


@asynccontextmanager
async def _running(
    argv: Sequence[str | Path], log: Path, listens_at: str, environ: dict[str, str] | None = None
) -> AsyncIterator[int]:
    with log.open("wb") as out:
        try:
            process = subprocess.Popen(
                [str(part) for part in argv], stdout=out, stderr=out, env={**os.environ, **(environ or {})}
            )
        except FileNotFoundError as error:
            raise Failure(f"{argv[0]} is missing; install its package") from error
    try:
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while not _accepts(listens_at):
            if process.poll() is not None or asyncio.get_running_loop().time() > deadline:
                last = log.read_text(errors="replace").strip().splitlines()[-3:]
                raise Failure(f"{argv[0]} does not serve:\n  " + "\n  ".join(last))
            await asyncio.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _accepts(listens_at: str) -> bool:
    family, address = _address(listens_at)
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def _address(listens_at: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    if "/" in listens_at:
        return socket.AF_UNIX, listens_at
    host, _, port = listens_at.rpartition(":")
    return socket.AF_INET, (host, int(port))


async def _workers(pid: int, count: int) -> tuple[int, ...]:
    """The processes that answer."""
    if count == 1:
        return (pid,)
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    while True:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if len(children) == count:
            return tuple(int(child) for child in children)
        if asyncio.get_running_loop().time() > deadline:
            raise Failure(f"{len(children)} of {count} workers run")
        await asyncio.sleep(0.05)


async def headers_of(listens_at: str, visitors: Visitors) -> dict[str, str]:
    """What a side answers the first visitor, without what aiohttp adds by itself. Raises Failure."""
    slug, token = visitors.tokens[0]
    connector = aiohttp.UnixConnector(listens_at) if "/" in listens_at else None
    url = f"http://{'facade' if connector else listens_at}{PATH}"
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get(url, headers={"Host": host_of(slug), "Cookie": f"medforge_session={token}"}) as answer,
    ):
        if answer.status != 200 or await answer.read():
            raise Failure(f"{listens_at} answers {answer.status} where 200 and nothing else was expected")
        return {name: value for name, value in answer.headers.items() if name not in ("Date", "Content-Length")}


async def _warm(listens_at: str, visitors: Visitors, workers: int) -> None:
    """Show every cookie to every worker: many in one request, which is refused, for they are not one person's."""
    connector = aiohttp.UnixConnector(listens_at) if "/" in listens_at else None
    base = "http://facade" if connector else f"http://{listens_at}"
    slug, token = visitors.tokens[0]
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:

        async def ask(cookies: str) -> int:
            # A connection of its own each time: another worker may answer.
            headers = {"Host": host_of(slug), "Cookie": cookies, "Connection": "close"}
            async with http.get(base + PATH, headers=headers) as answer:
                return answer.status

        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while await ask(f"medforge_session={token}") != 200:
            if asyncio.get_running_loop().time() > deadline:
                raise Failure("the facade does not let the first cookie into its session")
            await asyncio.sleep(0.05)
        for first in range(0, len(visitors.tokens), _WARM_AT_ONCE):
            some = visitors.tokens[first : first + _WARM_AT_ONCE]
            cookies = "; ".join(f"medforge_session={one}" for _, one in some)
            await asyncio.gather(*(ask(cookies) for _ in range(1 if workers == 1 else 4 * workers)))
