"""Owns whether the facade is well: what it knows of the daemon and of its own database, told without asking anyone."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec
import structlog
from aiohttp import web

from facade.auth.revision import Revision
from facade.sessions.registry import Registry
from facade.store.failures import DatabaseUnavailable
from medforged.client import DaemonClient, DaemonError
from medforged.contract import methods
from medforged.contract.daemon import GetStatus
from medforged.contract.daemon import Health as DaemonHealth

__all__ = ["FacadeHealth", "Failing", "Health", "HealthReport"]

_log = structlog.get_logger()

# How long the daemon and the database may take to show that they are there.
_DAEMON_SECONDS = 5.0
_DATABASE_SECONDS = 10.0


class Failing(msgspec.Struct, frozen=True, kw_only=True):
    """A part that is not well. What the daemon says of it may name the host's insides and goes to the log alone."""

    part: str
    detail: str


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`degraded` names the parts that are not well."""

    status: Literal["ok", "degraded"]
    failing: list[Failing] = []


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole body: monitors read it, so it has no `meta`."""

    data: Health


class FacadeHealth:
    """Kept up by `check_daemon` and `check_database`, which background tasks call; `get` only reads."""

    def __init__(self, client: DaemonClient, registry: Registry, revision: Revision) -> None:
        self._client = client
        self._registry = registry
        self._revision = revision
        self._daemon_parts: tuple[str, ...] = ()
        self._daemon_answers = True
        self._database_answers = True

    async def get(self, _request: web.Request) -> web.StreamResponse:
        """200 `ok`, or 503 `degraded` with the failing parts."""
        failing = self.failing()
        report = HealthReport(data=Health(status="degraded" if failing else "ok", failing=failing))
        return web.Response(
            body=msgspec.json.encode(report), status=503 if failing else 200, content_type="application/json"
        )

    def failing(self) -> list[Failing]:
        found = []
        if not self._registry.live or not self._daemon_answers:
            found.append(Failing(part="daemon", detail="The daemon does not answer."))
        else:
            parts = dict.fromkeys(self._daemon_parts)
            if not self._registry.recovery_alive:
                parts = {"recovery": None, **parts}
            found += [Failing(part=part, detail=f"The daemon reports that its {part} is not well.") for part in parts]
        if not self._database_answers:
            found.append(Failing(part="database", detail="The facade's database does not answer."))
        return found

    async def check_daemon(self) -> None:
        """Ask the daemon for the health of its parts."""
        try:
            async with asyncio.timeout(_DAEMON_SECONDS):
                health = await self._client.call(methods.daemon_health, GetStatus())
        except (DaemonError, TimeoutError) as error:
            self._note_daemon((), answers=False, why=str(error) or "no answer in time")
            return
        bad = {check.name: check.message for check in health.checks if check.health is not DaemonHealth.OK}
        if health.health is not DaemonHealth.OK and not bad:
            bad = {"daemon": ""}
        self._note_daemon(tuple(bad), answers=True, why="; ".join(f"{name}: {why}" for name, why in bad.items()))

    async def check_database(self) -> None:
        """Learn of what other processes have ended or changed, which also shows that the database answers."""
        try:
            async with asyncio.timeout(_DATABASE_SECONDS):
                await self._revision.poll()
        except DatabaseUnavailable as error:
            if self._database_answers:
                _log.error("database.lost", reason=str(error))
            self._database_answers = False
            raise
        except Exception:
            if self._database_answers:
                _log.exception("database.lost")
            self._database_answers = False
            raise
        if not self._database_answers:
            _log.info("database.found")
        self._database_answers = True

    def _note_daemon(self, parts: tuple[str, ...], *, answers: bool, why: str) -> None:
        if (parts, answers) != (self._daemon_parts, self._daemon_answers):
            if parts or not answers:
                _log.warning("daemon.degraded", parts=list(parts), reason=why)
            else:
                _log.info("daemon.healthy")
        self._daemon_parts, self._daemon_answers = parts, answers
