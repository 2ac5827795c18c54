"""Owns what the daemon tells about itself."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

__all__ = ["Adapter", "Check", "DaemonHealth", "DaemonStatus", "GetStatus", "Health"]


class Health(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """Which adapter serves a part and why; `real` is false for a simulation."""

    port: str
    adapter: str
    real: bool
    reason: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One part's health; `message` says what is wrong and what to do, empty when it is well."""

    name: str
    health: Health
    message: str = ""


class GetStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class DaemonHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What the facade needs for its own health page."""

    health: Health
    checks: list[Check]


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What `medforgectl status` shows."""

    version: str
    instance: str
    started_at: datetime
    health: Health
    checks: list[Check]
    adapters: list[Adapter]
    sessions_by_status: dict[str, int]
    gpus_total: int
    gpus_free: int
