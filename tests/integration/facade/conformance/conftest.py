"""One facade for the whole suite; every request gets a world of its own in it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from facade.auth.passwords import Passwords
from facade.bootstrap import assemble
from facade.config import Daemon, Database, Listen, Settings, Site
from facade.server import Runner
from medforged.contract.sessions import Session
from tests.fakes.clock import SetClock
from tests.fakes.daemon import FakeDaemon, fake_daemon, make_session
from tests.integration.facade.conformance.expectations import COLUMNS, Expected
from tests.integration.facade.conformance.judging import Judge
from tests.integration.facade.conformance.recipes import ADMIN_SCOPES, RECIPES, SCOPES, Caller, Recipe, World
from tests.integration.facade.conformance.variants import BODY_MAX_BYTES, Sent, variants
from tests.integration.facade.conftest import UNLIMITED, Answer, Api, Person, eventually

GPUS = 5000


@dataclass
class Stage:
    """A facade under judgement, and what makes worlds in it: whoever has changed something leaves it to nobody else."""

    api: Api
    daemon: FakeDaemon
    clock: SetClock
    judge: Judge

    async def world(self, caller: str, recipe: Recipe) -> World:
        """New people and new things of theirs."""
        owner = await self.api.person()
        session = await self._running(owner) if recipe.session else None
        api_token = (await self._api_token(owner, SCOPES))["api_token"]["id"] if recipe.api_token else None
        return World(owner, await self._caller(caller, owner, recipe), session, api_token)

    async def _caller(self, caller: str, owner: Person, recipe: Recipe) -> Caller:
        match caller:
            case "anonymous":
                return Caller()
            case "user":
                return Caller(owner.token)
            case "other" | "admin":
                return Caller((await self.api.person(admin=caller == "admin")).token)
            case "expired":
                self.clock.advance(days=31)
                return Caller(owner.token)
            case "revoked":
                assert (await self.api.post("/api/v1/auth/logout", token=owner.token)).status == 200
                return Caller(owner.token)
            case _:
                return await self._script(caller, owner, recipe)

    async def _script(self, caller: str, owner: Person, recipe: Recipe) -> Caller:
        if caller in ("keyed", "demoted"):
            admin = await self.api.person(admin=True)
            made = await self._api_token(admin, (*SCOPES, *ADMIN_SCOPES))
            if caller == "demoted":
                await self.api.set_admin(admin.user_id, is_admin=False)
            return Caller(bearer=made["token"])
        made = await self._api_token(
            owner, [scope for scope in SCOPES if (caller, scope) != ("scopeless", recipe.scope)]
        )
        if caller == "token":
            return Caller(bearer=made["token"])
        if caller == "stale":
            self.clock.advance(days=2)
        if caller == "dead":
            path = f"/api/v1/me/tokens/{made['api_token']['id']}"
            assert (await self.api.request("DELETE", path, token=owner.token)).status == 200
        return Caller(owner.token, made["token"])

    async def _api_token(self, owner: Person, scopes: Iterable[str]) -> dict[str, Any]:
        wanted = {"name": "script", "scopes": list(scopes), "expires_in_days": 1}
        answer = await self.api.post("/api/v1/me/tokens", token=owner.token, json=wanted)
        assert answer.status == 201, answer.body
        made: dict[str, Any] = answer.data
        return made

    async def _running(self, owner: Person) -> Session:
        session = await self.daemon.put(make_session(owner.user_id, gpu_id=len(self.daemon.sessions)))
        await eventually(lambda: self.api.facade.registry.by_id(session.id) is not None)
        return session

    async def ask(self, sent: Sent, caller: Caller) -> Answer:
        bearer = [("Authorization", f"Bearer {caller.bearer}")] if caller.bearer else []
        return await self.api.request(
            sent.verb,
            f"{sent.path}?{sent.query}" if sent.query else sent.path,
            host=sent.host,
            headers=[*sent.headers, *bearer],
            data=sent.body,
            token=caller.cookie,
            skip_auto_headers=["Content-Type"],
        )

    async def faults(self, where: tuple[str, str], caller: str, told: Expected, *, every: bool) -> list[str]:
        """What differs from one row of the table. `every`: all requests of each column, else its first one alone."""
        recipe, found = RECIPES[where], list[str]()
        world = await self.world(caller, recipe)
        for column in COLUMNS:
            cell = told.cells[caller, column]
            count = len(variants(column, where, recipe, world, told.allow))
            if bool(count) != (cell != "-"):
                found.append(f"{column}: {count} requests, and the table says {cell}")
                continue
            for number in range(count if every else min(1, count)):
                sent = variants(column, where, recipe, world, told.allow)[number]
                answer = await self.ask(sent, world.caller)
                found += [
                    f"{caller} {column} [{sent.verb} {sent.path}?{sent.query}]: {fault}"
                    for fault in self.judge.faults(where, sent, answer, cell, told)
                ]
                if sent.verb not in ("GET", "HEAD") and answer.status < 400:
                    world = await self.world(caller, recipe)
        return found


@contextlib.asynccontextmanager
async def stage(directory: Path) -> AsyncIterator[Stage]:
    """A facade and its daemon, for as long as the context lasts."""
    settings = Settings(
        site=Site(domain="example.test", web_root=""),
        listen=Listen(body_max_bytes=BODY_MAX_BYTES),
        database=Database(url=f"sqlite+aiosqlite:///{directory / 'facade.db'}"),
        daemon=Daemon(socket=str(directory / "medforged.sock")),
        limits=UNLIMITED,
    )
    clock = SetClock()
    cheap = Passwords(time_cost=1, memory_kib=8, parallelism=1)
    socket = directory / "facade.sock"
    async with (
        fake_daemon(directory / "medforged.sock", gpu_count=GPUS) as daemon,
        assemble(settings, clock=clock, passwords=cheap) as facade,
    ):
        runner = Runner(facade.app, facade.fast_path, drain_seconds=1)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()
        api = Api(socket, facade)
        try:
            await eventually(lambda: facade.registry.live)
            document: dict[str, Any] = (await api.get("/api/v1/openapi.json")).json
            yield Stage(api, daemon, clock, Judge(document))
        finally:
            await api.close()
            await runner.cleanup()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with stage(tmp_path_factory.mktemp("conformance")) as made:
        yield made
