"""Owns the public face for tests of its whole: the real Caddy, the real facade, and containers that record what they get.

Each running session is a container of its own name on the sessions' network, which passes every byte on to a recording
server of the test; so what that one has seen is what has reached that container. The daemon is scripted. A world
may be given a Caddyfile other than the product's: that is how tests show that they would notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from aiohttp import web

from facade.auth.passwords import Passwords
from facade.bootstrap import assemble
from facade.config import Daemon, Database, Listen, Settings, Site
from facade.server import Runner
from medforged.contract.sessions import SessionStatus
from tests.fakes.daemon import FakeDaemon, make_session
from tests.host.caddy_site import (
    REPOSITORY,
    SCRIPT,
    CaddySite,
    Message,
    ScriptedServer,
    Wire,
    answer,
    caddy_environment,
    caddy_network,
    container,
    random_slug,
    relay,
)

PASSWORD = "correct horse battery"
CADDYFILE = REPOSITORY / "deploy" / "caddy" / "Caddyfile"


@dataclass
class World:
    """`tokens` by person: ada and bob own a running session each (`sessions["ada"]`, `["bob"]`), root is an admin, and
    `gone` has signed out. Further slugs: ada's `starting` and `stopping`, and `none`, which no session has.
    """

    site: CaddySite
    recorders: dict[str, ScriptedServer]
    tokens: dict[str, str]
    sessions: dict[str, str]
    facade_socket: Path

    def owner(self, slug: str) -> str | None:
        return next((who for who in ("ada", "bob") if self.sessions[who] == slug), None)

    def recorded(self) -> list[tuple[str, Message]]:
        """The slug of the container that was reached, and what has reached it."""
        return [(self.sessions[who], seen) for who, recorder in self.recorders.items() for seen in list(recorder.seen)]

    def forget(self) -> None:
        for recorder in self.recorders.values():
            recorder.seen.clear()


def welcome(request: Message, wire: Wire) -> None:
    """What a session answers to everything; no body to HEAD."""
    if request.method == "HEAD":
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
    else:
        answer(200, body=b"session")(request, wire)


@contextlib.contextmanager
def world(caddyfile: str | None = None, *, body_seconds: float = 30.0) -> Iterator[World]:
    """A public face, with the text of another Caddyfile if one is given, and a facade that waits so long for bodies."""
    directory = Path(tempfile.mkdtemp(prefix="mfcd-"))
    directory.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        network, address = stack.enter_context(caddy_network())
        environment = caddy_environment(network, address, directory)
        slugs = {name: random_slug() for name in ("ada", "bob", "starting", "stopping", "none")}
        recorders = {}
        for who in ("ada", "bob"):
            folder = directory / who
            folder.mkdir()
            recorders[who] = ScriptedServer(folder / "session.sock")
            recorders[who].script = welcome
            recorders[who].start()
            stack.callback(recorders[who].stop)
            stack.enter_context(relay(network, folder, (slugs[who],)))
        port = int(environment["MEDFORGE_HTTPS_PORT"])
        socket = directory / "facade" / "facade.sock"
        facade = _Facade(directory, socket, port, body_seconds)
        stack.callback(facade.stop)
        facade.start()
        script = _script(directory, caddyfile)
        stack.callback(container, "down", environment, script)
        made = container("up", environment, script)
        assert made.returncode == 0, made.stderr
        authority = directory / "state" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        site = CaddySite(port, environment, authority, recorders["ada"], recorders["ada"], tuple(slugs.values()))
        stack.callback(_close, site)
        people = _sign_up(site, directory / "facade.db")
        facade.put({who: UUID(user_id) for who, (_, user_id) in people.items()}, slugs)
        yield World(site, recorders, {who: token for who, (token, _) in people.items()}, slugs, socket)


@functools.cache
def caddy_drops_underscores() -> bool:
    """Whether this Caddy takes names with an underscore out by itself, as versions that were repaired do.

    Asked of one whose sessions' hosts do nothing but say what they got: our own rule then notices nothing missing.
    """
    start = "\t\timport https_only\n\t\troute @session_proxy {"
    text = CADDYFILE.read_text()
    assert text.count(start) == 1
    said = text.replace(start, '\t\trespond "{http.request.header.X-Probe} {http.request.header.X_Probe}"\n' + start)
    with world(said) as made:
        got = made.site.get("/", ("X-Probe", "dash"), ("X_Probe", "underscore")).body
    assert got in (b"dash underscore", b"dash "), got
    return got == b"dash "


def _script(directory: Path, caddyfile: str | None) -> Path:
    if caddyfile is None:
        return SCRIPT
    shutil.copytree(SCRIPT.parent, directory / "deploy")
    (directory / "deploy" / "Caddyfile").write_text(caddyfile)
    return directory / "deploy" / SCRIPT.name


def _close(site: CaddySite) -> None:
    while site.opened:
        site.opened.pop().close()


def _sign_up(site: CaddySite, database: Path) -> dict[str, tuple[str, str]]:
    """Token and user id of everybody."""
    people = {}
    for who in ("ada", "bob", "root", "gone"):
        made = post(site, "/api/v1/auth/signup", {"email": f"{who}@example.org", "password": PASSWORD})
        people[who] = (_token(made), str(json.loads(made.body)["data"]["user_id"]))
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE users SET is_admin = 1 WHERE email = 'root@example.org'")
    # Signed in anew, so that no process remembers an ordinary user.
    again = post(site, "/api/v1/auth/login", {"email": "root@example.org", "password": PASSWORD})
    people["root"] = (_token(again), people["root"][1])
    post(site, "/api/v1/auth/logout", {}, token=people["gone"][0])
    return people


def post(site: CaddySite, path: str, body: object, *, token: str = "") -> Message:
    """What the platform's API answers, if that is good."""
    headers = [("Content-Type", "application/json")]
    headers += [("Cookie", f"medforge_session={token}")] if token else []
    got = site.get(path, *headers, host=site.platform, method="POST", body=json.dumps(body).encode())
    assert got.status in (200, 201), got
    return got


def _token(answered: Message) -> str:
    [login] = [value for value in answered.values("Set-Cookie") if value.startswith("medforge_session=")]
    return login.removeprefix("medforge_session=").partition(";")[0]


class _Facade:
    """The real facade and its scripted daemon, on an event loop of their own in a thread."""

    def __init__(self, directory: Path, socket: Path, port: int, body_seconds: float) -> None:
        self._socket = socket
        self._daemon = FakeDaemon(directory / "medforged.sock")
        self._settings = Settings(
            site=Site(domain="localhost", https_port=port, web_root=str(REPOSITORY / "web")),
            listen=Listen(body_seconds=body_seconds),
            database=Database(url=f"sqlite+aiosqlite:///{directory / 'facade.db'}"),
            daemon=Daemon(socket=str(self._daemon.socket)),
        )
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready: threading.Event = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30), "the facade does not start"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()

    def put(self, ids: dict[str, UUID], slugs: dict[str, str]) -> None:
        """Makes the sessions, and waits until the facade has heard of all of them."""
        asyncio.run_coroutine_threadsafe(self._put(ids, slugs), self._loop).result(30)

    async def _put(self, ids: dict[str, UUID], slugs: dict[str, str]) -> None:
        for name, who, status in (
            ("ada", "ada", SessionStatus.RUNNING),
            ("bob", "bob", SessionStatus.RUNNING),
            ("starting", "ada", SessionStatus.STARTING),
            ("stopping", "ada", SessionStatus.STOPPING),
        ):
            await self._daemon.put(make_session(ids[who], slug=slugs[name], status=status))
            while self._facade.registry.by_slug(slugs[name]) is None:  # noqa: ASYNC110  # the registry does not tell
                await asyncio.sleep(0.005)

    async def _serve(self) -> None:
        # As cheap as argon2id can be: what is tested is not how long it takes.
        cheap = Passwords(time_cost=1, memory_kib=8, parallelism=1)
        await self._daemon.come_back()
        async with assemble(self._settings, passwords=cheap) as self._facade:
            runner = Runner(self._facade.app, self._facade.fast_path, drain_seconds=1)
            await runner.setup()
            await web.UnixSite(runner, str(self._socket), backlog=1024).start()
            self._socket.chmod(0o666)
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()
        await self._daemon.go_away()
