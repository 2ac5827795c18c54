"""Owns what `ops/bench proxy` fills a facade with: people, their logins, and a daemon whose sessions all run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
from aiohttp import web
from sqlalchemy import insert

from facade.auth.tokens import digest, new_token
from facade.config import Database
from facade.store.engine import Store
from facade.store.tables import logins, users
from medforged.contract.daemon import DaemonHealth, Health
from medforged.contract.methods import WATCH_PATH
from medforged.contract.sessions import Session, SessionStatus, SessionStep, Tier
from medforged.contract.watch import HEARTBEAT_SECONDS, Heartbeat, SessionChanged, Synced

DOMAIN = "localhost"


@dataclass(frozen=True)
class Visitors:
    """Sessions that run, and the cookies of their owners."""

    sessions: tuple[Session, ...]
    tokens: tuple[tuple[str, str], ...]
    """Slug and token."""


def host_of(slug: str) -> str:
    return f"s-{slug}.medforge.{DOMAIN}"


async def fill(directory: Path, sessions: int, cookies: int) -> Visitors:
    """A database of the facade with so many people, one to each session, and so many logins."""
    store = Store.of(Database(url=f"sqlite+aiosqlite:///{directory / 'facade.db'}"))
    now = datetime.now(UTC)
    running = tuple(_session(number, uuid4(), now) for number in range(sessions))
    tokens = tuple((running[number % sessions].slug, new_token()) for number in range(max(cookies, sessions)))
    await store.open()
    try:
        async with store.writing() as connection:
            await connection.execute(
                insert(users),
                [
                    {
                        "id": session.user_id,
                        "email": f"person{number}@example.org",
                        "password_hash": "-",
                        "is_admin": False,
                        "max_concurrent_sessions": 1,
                        "created_at": now,
                    }
                    for number, session in enumerate(running)
                ],
            )
            await connection.execute(
                insert(logins),
                [
                    {
                        "token_digest": digest(token),
                        "user_id": running[number % sessions].user_id,
                        "created_at": now,
                        "last_used_at": now,
                    }
                    for number, (_, token) in enumerate(tokens)
                ],
            )
    finally:
        await store.close()
    return Visitors(running, tokens)


def _session(number: int, user_id: UUID, now: datetime) -> Session:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    slug = "".join(letters[number >> shift & 31] for shift in range(35, -1, -5))
    return Session(
        id=uuid4(),
        user_id=user_id,
        tier=Tier.PUBLIC,
        pack_id=UUID(int=1),
        slug=slug,
        status=SessionStatus.RUNNING,
        step=SessionStep.SERVE,
        container_id="0" * 64,
        gpu_id=number,
        gpu_uuid=f"GPU-{UUID(int=number)}",
        workspace_zfs=f"tank/medforge/workspaces/{user_id}/{number}",
        created_at=now,
        started_at=now,
        stopped_at=None,
        error_message=None,
        revision=number + 1,
    )


@asynccontextmanager
async def a_daemon(path: Path, sessions: Sequence[Session]) -> AsyncIterator[None]:
    """What the facade hears of a daemon where nothing changes: its sessions, and that it is well."""
    lines = b"".join(msgspec.json.encode(SessionChanged(session=session)) + b"\n" for session in sessions)
    synced = msgspec.json.encode(Synced(epoch=uuid4(), revision=len(sessions), relist=True)) + b"\n"
    beat = msgspec.json.encode(Heartbeat(revision=len(sessions), recovery_alive=True)) + b"\n"
    well = msgspec.json.encode(DaemonHealth(health=Health.OK, checks=[]))

    async def watch(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        await response.write(lines + synced)
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(HEARTBEAT_SECONDS / 2)
                await response.write(beat)
        return response

    async def health(_request: web.Request) -> web.Response:
        return web.Response(body=well, content_type="application/json")

    app = web.Application()
    app.router.add_get(WATCH_PATH, watch)
    app.router.add_post("/v1/{method}", health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield
    finally:
        await runner.cleanup()
