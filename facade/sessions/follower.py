"""Owns following the daemon's watch stream into the registry, for as long as the facade lives."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from facade.sessions.registry import Registry
from medforged.client import DaemonClient, DaemonError, watch_forever
from medforged.contract.errors import ErrorCode

__all__ = ["follow"]

_log = structlog.get_logger()
_RETRY_SECONDS = 1.0


async def follow(client: DaemonClient, registry: Registry) -> None:
    """Runs until cancelled."""
    while True:
        try:
            await _follow(client, registry)
        except Exception:  # noqa: BLE001  # a defect here must not leave every session unreachable for good
            _log.exception("daemon.watch_failed")
            registry.hear(DaemonError(ErrorCode.INTERNAL, "cannot follow the daemon: a defect, see the log"))
            await asyncio.sleep(_RETRY_SECONDS)


async def _follow(client: DaemonClient, registry: Registry) -> None:
    async with contextlib.aclosing(watch_forever(client)) as events:
        async for event in events:
            was_live = registry.live
            registry.hear(event)
            if was_live and not registry.live:
                _log.warning("daemon.lost", reason=registry.lost)
            elif registry.live and not was_live:
                _log.info("daemon.found")
