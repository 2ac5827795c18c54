"""Owns THE method table of the daemon's socket: name, parameters, result, who may call, whether calls are audited.

A method is called by `POST /v1/<name>` with its parameters as a JSON object; see docs/reference/rpc.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeVar

import msgspec

from medforged.contract import daemon, gpus, orphans, packs, sessions

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
    "gpus_disable",
    "gpus_enable",
    "gpus_list",
    "gpus_recheck",
    "orphans_list",
    "orphans_remove",
    "packs_list",
    "sessions_create",
    "sessions_get",
    "sessions_list",
    "sessions_logs",
    "sessions_reconcile",
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
gpus_enable     = Method("gpus.enable",     gpus.GpuRef,            gpus.GpuResult,            Access.OPERATOR, True,  "Let a GPU be given to sessions.")
gpus_disable    = Method("gpus.disable",    gpus.GpuRef,            gpus.GpuResult,            Access.OPERATOR, True,  "Give a GPU to no further session.")
gpus_recheck    = Method("gpus.recheck",    gpus.GpuRef,            gpus.GpuResult,            Access.OPERATOR, True,  "Forget what a GPU reported in the past, look at it, and end its quarantine if it is free.")
orphans_list    = Method("orphans.list",    orphans.ListOrphans,    orphans.OrphanList,        Access.OPERATOR, False, "What no record explains on this host.")
orphans_remove  = Method("orphans.remove",  orphans.RemoveOrphans,  orphans.OrphanList,        Access.OPERATOR, True,  "Remove what no record explains, but never a dataset that holds anything.")
packs_list      = Method("packs.list",      packs.ListPacks,        packs.PackList,            Access.FACADE,   False, "Packs that sessions can run.")
sessions_create = Method("sessions.create", sessions.CreateSession, sessions.SessionResult,    Access.FACADE,   True,  "Start a session; answers when its IDE does.")
sessions_get    = Method("sessions.get",    sessions.SessionRef,    sessions.SessionResult,    Access.FACADE,   False, "One session.")
sessions_list   = Method("sessions.list",   sessions.ListSessions,  sessions.SessionPage,      Access.FACADE,   False, "A page of sessions, newest first.")
sessions_stop   = Method("sessions.stop",   sessions.SessionRef,    sessions.StopAccepted,     Access.FACADE,   True,  "Ask a session to stop; answers at once.")
sessions_logs   = Method("sessions.logs",   sessions.SessionLogs,   sessions.SessionLogsText,  Access.OPERATOR, True,  "The last lines that a session's container wrote.")
sessions_reconcile = Method("sessions.reconcile", sessions.ReconcileSessions, sessions.ReconcileReport, Access.OPERATOR, True, "Make records and host agree now, and tell what did not match.")
# fmt: on

METHODS: tuple[Method[Any, Any], ...] = (
    daemon_status,
    daemon_health,
    gpus_list,
    gpus_enable,
    gpus_disable,
    gpus_recheck,
    orphans_list,
    orphans_remove,
    packs_list,
    sessions_create,
    sessions_get,
    sessions_list,
    sessions_stop,
    sessions_logs,
    sessions_reconcile,
)
METHODS_BY_NAME: dict[str, Method[Any, Any]] = {method.name: method for method in METHODS}
WATCH_ACCESS = Access.FACADE
