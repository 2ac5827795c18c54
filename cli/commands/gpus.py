"""Owns `medforgectl gpus`: every GPU that the daemon knows, its readings, and the session that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from cli import sessions
from cli.connection import Daemon, pass_daemon
from cli.output import NONE, gibibytes, output_option, print_json, print_table, print_text, reading
from cli.text import one_line
from medforged.contract import methods
from medforged.contract.gpus import Gpu, GpuHealth, GpuList, ListGpus

if TYPE_CHECKING:
    from medforged.client import DaemonClient

__all__ = ["gpus"]

_COLUMNS = ["id", "index", "name", "memory GiB", "use", "temp", "power", "procs", "state", "session"]


@click.command()
@output_option
@pass_daemon
def gpus(daemon: Daemon, output: str) -> None:
    """List the GPUs of this host with their readings and who holds them.

    ID is the daemon's lasting number of a GPU; INDEX is the driver's order since the last boot, as nvidia-smi counts.
    A GPU that is held by no session is free when it is enabled and healthy. JSON also has UUIDs, PCI addresses and
    process ids, with memory in bytes and power in milliwatts.

    \b
    Examples:
      medforgectl gpus
      medforgectl gpus -o json | jq -r '.gpus[] | select(.health != "healthy") | .uuid'
    """

    async def look(client: DaemonClient) -> tuple[GpuList, dict[UUID, str]]:
        told = await client.call(methods.gpus_list, ListGpus())
        if output == "json" or all(gpu.session_id is None for gpu in told.gpus):
            return told, {}
        return told, {session.id: session.slug for session in await sessions.active(client)}

    told, slugs = daemon.run(look)
    if output == "json":
        print_json(told)
        return
    print_table(_COLUMNS, [_row(gpu, slugs) for gpu in told.gpus])
    for gpu in told.gpus:
        if gpu.reason:
            print_text(one_line(f"GPU {gpu.id}: {gpu.reason}"))
    for fault in told.faults:
        print_text(one_line(f"Fault: {fault}"))


def _row(gpu: Gpu, slugs: dict[UUID, str]) -> list[str]:
    return [
        str(gpu.id),
        str(gpu.index),
        gpu.name,
        f"{gibibytes(gpu.memory_used_bytes)}/{gibibytes(gpu.memory_total_bytes)}",
        reading(gpu.utilization_percent, "%"),
        reading(gpu.temperature_celsius, "°C"),
        reading(gpu.power_milliwatts, "W", 1000),
        str(len(gpu.process_ids)),
        _state(gpu),
        # A holder that ended between the two questions is told by its id.
        NONE if gpu.session_id is None else slugs.get(gpu.session_id, str(gpu.session_id)),
    ]


def _state(gpu: Gpu) -> str:
    if gpu.health is not GpuHealth.HEALTHY:
        return "unhealthy"
    if not gpu.enabled:
        return "disabled"
    return "free" if gpu.session_id is None else "held"
