"""Owns THE method table of the daemon's socket: name, parameters, result, who may call, whether calls are audited.

A method is called by `POST /v1/<name>` with its parameters as a JSON object; see docs/reference/rpc.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeVar

import msgspec

from medforged.contract import daemon, gpus, packs, sessions

__all__ = [
    "CORRELATION_HEADER",
    "METHODS",
    "METHODS_BY_NAME",
    "WATCH_ACCESS",
    "WATCH_PATH",
    "Access",
    "Method",
    "daemon_health",
    "daemon_status",
    "gpus_list",
    "packs_list",
    "sessions_create",
    "sessions_get",
    "sessions_list",
    "sessions_logs",
    "sessions_stop",
]

CORRELATION_HEADER = "X-Correlation-ID"
WATCH_PATH = "/v1/watch"


class Access(IntEnum):
    """What a peer may do; each level includes the ones below it."""

    NONE = 0
    FACADE = 1
    """What end users need: the facade's own user."""
    OPERATOR = 2
    """Everything: root and the operator group."""


P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Method(Generic[P, R]):
    """One entry of the table. `audited` calls are told to the journal with the caller's uid and pid."""

    name: str
    params: type[P]
    result: type[R]
    access: Access
    audited: bool
    summary: str


# fmt: off
daemon_status   = Method("daemon.status",   daemon.GetStatus,       daemon.DaemonStatus,       Access.OPERATOR, False, "Adapters, health and counts of this host.")
daemon_health   = Method("daemon.health",   daemon.GetStatus,       daemon.DaemonHealth,       Access.FACADE,   False, "Health alone.")
gpus_list       = Method("gpus.list",       gpus.ListGpus,          gpus.GpuList,              Access.OPERATOR, False, "Known GPUs, their readings and who holds them.")
packs_list      = Method("packs.list",      packs.ListPacks,        packs.PackList,            Access.FACADE,   False, "Packs that sessions can run.")
sessions_create = Method("sessions.create", sessions.CreateSession, sessions.SessionResult,    Access.FACADE,   True,  "Start a session; answers when its IDE does.")
sessions_get    = Method("sessions.get",    sessions.SessionRef,    sessions.SessionResult,    Access.FACADE,   False, "One session.")
sessions_list   = Method("sessions.list",   sessions.ListSessions,  sessions.SessionPage,      Access.FACADE,   False, "A page of sessions, newest first.")
sessions_stop   = Method("sessions.stop",   sessions.SessionRef,    sessions.StopAccepted,     Access.FACADE,   True,  "Ask a session to stop; answers at once.")
sessions_logs   = Method("sessions.logs",   sessions.SessionLogs,   sessions.SessionLogsText,  Access.OPERATOR, True,  "The last lines that a session's container wrote.")
# fmt: on

METHODS: tuple[Method[Any, Any], ...] = (
    daemon_status,
    daemon_health,
    gpus_list,
    packs_list,
    sessions_create,
    sessions_get,
    sessions_list,
    sessions_stop,
    sessions_logs,
)
METHODS_BY_NAME: dict[str, Method[Any, Any]] = {method.name: method for method in METHODS}
WATCH_ACCESS = Access.FACADE
