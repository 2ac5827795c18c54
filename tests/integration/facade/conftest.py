"""A facade on a real Unix socket, with a real database and a scripted daemon."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import aiohttp
import msgspec
import pytest
from aiohttp import web
from sqlalchemy import update

from facade.auth.passwords import Passwords
from facade.bootstrap import Facade, assemble
from facade.config import Auth, Daemon, Database, Limits, Listen, Operators, Settings, Site
from facade.limits.table import SharedTable
from facade.listening import BACKLOG, Passed, listen_to_operators
from facade.operators.server import serving_operators
from facade.server import Runner
from facade.store.tables import metadata, users
from medforged.client import FACADE, DaemonClient
from tests.fakes.clock import SetClock
from tests.fakes.daemon import FakeDaemon, fake_daemon
from tests.integration.facade.mariadb import Server, missing
from tests.integration.facade.program import Program

EVERY_DATABASE = ("sqlite", "mariadb")
_numbers = itertools.count(1)

SITE = "medforge.example.test"
PASSWORD = "correct horse"
# Tests come from one address and are more impatient than a classroom.
UNLIMITED = Limits(
    attempts_per_address=65_000,
    attempts_per_network=65_000,
    attempts_per_device=65_000,
    failures_per_visitor=65_000,
    failures_per_account=65_000,
    failures_per_device=65_000,
    signups_per_network=65_000,
    tokens_per_user=65_000,
)


class Serving(Protocol):
    """Starts a facade; `counters`: the table of limits that it shares with others."""

    def __call__(
        self, settings: Settings, counters: SharedTable | None = None
    ) -> contextlib.AbstractAsyncContextManager[Api]: ...


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def data(self) -> Any:
        return self.json["data"]

    @property
    def cookie(self) -> str:
        """The token that the answer sets."""
        found: str = self.headers["Set-Cookie"].removeprefix("medforge_session=").partition(";")[0]
        return found


@dataclass(frozen=True)
class Person:
    user_id: UUID
    email: str
    token: str


class Api:
    """Speaks to a facade's socket like Caddy does, in a browser's or a program's name."""

    def __init__(self, socket: Path, facade: Facade, operators: DaemonClient | None = None) -> None:
        self.socket = socket
        self.facade = facade
        self.operators = operators
        """What medforgectl uses."""
        self._http = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket), limit=0), cookie_jar=aiohttp.DummyCookieJar()
        )
        self._people = 0

    async def close(self) -> None:
        await self._http.close()

    async def request(
        self,
        verb: str,
        path: str,
        *,
        token: str | None = None,
        host: str = SITE,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        **options: Any,
    ) -> Answer:
        named = [("Host", host), *(headers.items() if isinstance(headers, dict) else headers or ())]
        if token is not None:
            named.append(("Cookie", f"medforge_session={token}"))
        async with self._http.request(
            verb, f"http://facade{path}", headers=named, allow_redirects=False, **options
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.request("POST", path, **options)

    async def proxy(self, slug: str, token: str | None = None, **options: Any) -> Answer:
        """What Caddy asks for a request to a session's host."""
        return await self.get("/api/v1/auth/session-proxy", host=f"s-{slug}.{SITE}", token=token, **options)

    async def person(self, *, admin: bool = False) -> Person:
        """A new account, signed in."""
        self._people += 1
        email = f"person{self._people}@example.org"
        answer = await self.post("/api/v1/auth/signup", json={"email": email, "password": PASSWORD})
        assert answer.status == 201, answer.body
        user_id = UUID(answer.data["user_id"])
        if admin:
            await self.set_admin(user_id, is_admin=True)
        return Person(user_id, email, answer.cookie)

    async def set_admin(self, user_id: UUID, *, is_admin: bool) -> None:
        """Nobody is told: whoever the facade knows already stays what they were."""
        async with self.facade.store.writing() as connection:
            await connection.execute(update(users).where(users.c.id == user_id).values(is_admin=is_admin))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own time limit is the limit."""
    while not condition():  # noqa: ASYNC110  # what is waited for happens in another task, which does not tell
        await asyncio.sleep(0.005)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that uses a database runs over every kind; modules that test something else name theirs in DATABASES.

    MEDFORGE_TEST_DATABASES=all runs those over every kind too. A module whose subject is one kind names it in DATABASE.
    """
    if "database" in metafunc.fixturenames:
        usual = getattr(metafunc.module, "DATABASES", EVERY_DATABASE)
        kinds = EVERY_DATABASE if os.environ.get("MEDFORGE_TEST_DATABASES") == "all" else usual
        if (subject := getattr(metafunc.module, "DATABASE", None)) is not None:
            kinds = (subject,)
        metafunc.parametrize("database", kinds, indirect=True)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """A MariaDB server, started when the first test asks for it."""
    if why := missing():
        pytest.skip(why)
    server = Server()
    try:
        server.install()
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def new_database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Makes databases of a kind, in which there is nothing yet; told by their URLs."""
    made: list[str] = []

    async def make(kind: str) -> str:
        number = next(_numbers)
        if kind == "sqlite":
            return f"sqlite+aiosqlite:///{tmp_path / f'facade{number}.db'}"
        server: Server = request.getfixturevalue("mariadb")
        made.append(f"facade{number}")
        # Not what the tables need: they have to be right whatever the database's own defaults are.
        await server.execute(f"CREATE DATABASE facade{number} CHARACTER SET latin1")
        return server.url(f"facade{number}")

    yield make
    if made:
        await request.getfixturevalue("mariadb").execute(*(f"DROP DATABASE {name}" for name in made))


@pytest.fixture
async def database(request: pytest.FixtureRequest, new_database: Callable[[str], Awaitable[str]]) -> AsyncIterator[str]:
    """The URL of a database that holds nothing. On MariaDB its tables may be there already: making them takes a while.

    Tests that change tables, or need a database without any, have their own from `new_database`.
    """
    if request.param == "sqlite":
        yield await new_database(request.param)
        return
    server: Server = request.getfixturevalue("mariadb")
    name = await server.borrow()
    yield server.url(name)
    await server.give_back(name, *metadata.tables)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    async with fake_daemon(tmp_path / "medforged.sock") as made:
        yield made


@pytest.fixture
def settings(tmp_path: Path, database: str) -> Settings:
    return Settings(
        site=Site(domain="example.test", web_root=""),
        listen=Listen(body_max_bytes=4096),
        # The tests run as one user, whoever that is.
        operators=Operators(own_user=True),
        auth=Auth(),
        limits=UNLIMITED,
        database=Database(url=database),
        daemon=Daemon(socket=str(tmp_path / "medforged.sock")),
    )


@pytest.fixture
def serving(tmp_path: Path, clock: SetClock) -> Serving:
    """Starts facades; several may serve one database."""
    count = 0

    @contextlib.asynccontextmanager
    async def serve(settings: Settings, counters: SharedTable | None = None) -> AsyncIterator[Api]:
        nonlocal count
        count += 1
        socket = tmp_path / f"facade{count}.sock"
        # As cheap as argon2id can be: what is tested is not how long it takes.
        cheap = Passwords(time_cost=1, memory_kib=8, parallelism=1)
        told = msgspec.structs.replace(settings.listen, operator_socket=str(tmp_path / f"operators{count}.sock"))
        listener = listen_to_operators(told, settings.operators, Passed())
        assert listener is not None
        async with (
            assemble(settings, clock=clock, passwords=cheap, counters=counters) as facade,
            serving_operators(facade.operators, listener.socket, 1),
            DaemonClient(Path(listener.told), called=FACADE) as operators,
        ):
            runner = Runner(facade.app, facade.fast_path, drain_seconds=1)
            await runner.setup()
            await web.UnixSite(runner, str(socket), backlog=BACKLOG).start()
            api = Api(socket, facade, operators)
            try:
                yield api
            finally:
                await api.close()
                await runner.cleanup()

    return serve


@pytest.fixture
async def api(
    daemon: FakeDaemon,
    settings: Settings,
    serving: Serving,
) -> AsyncIterator[Api]:
    async with serving(settings) as made:
        await eventually(lambda: made.facade.registry.live)
        yield made


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    made.write()
    yield made
    made.close()
