"""Owns `medforgectl gpus`: the list of what the daemon knows, and what an operator decides about one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

import click
from click.core import ParameterSource

from cli import sessions
from cli.connection import Daemon, pass_daemon
from cli.gpus import complete, find, holder, reference, state
from cli.output import NONE, gibibytes, output_option, print_json, print_table, print_text, reading
from cli.progress import Progress
from cli.text import one_line
from medforged.contract import methods
from medforged.contract.exitcodes import ExitCode
from medforged.contract.gpus import Gpu, GpuHealth, GpuList, GpuRef, GpuResult, ListGpus
from medforged.contract.methods import Method

if TYPE_CHECKING:
    from medforged.client import DaemonClient

__all__ = ["disable", "enable", "gpus", "list_gpus", "recheck"]

_COLUMNS = ["id", "index", "name", "memory GiB", "use", "temp", "power", "procs", "state", "session"]


@click.group(invoke_without_command=True)
@output_option
@pass_daemon
@click.pass_context
def gpus(context: click.Context, daemon: Daemon, output: str) -> None:
    """List the GPUs of this host, and decide which of them sessions may have.

    Without a command it lists them, as medforgectl gpus ls does. A GPU is named by its id, the daemon's lasting number,
    or by its UUID.

    \b
    Examples:
      medforgectl gpus
      medforgectl gpus -o json | jq -r '.gpus[] | select(.health != "healthy") | .uuid'
      medforgectl gpus disable 3
    """
    if context.invoked_subcommand is None:
        _list(daemon, output)
    elif context.get_parameter_source("output") is not ParameterSource.DEFAULT:
        raise click.UsageError(
            f"-o belongs behind the command: medforgectl gpus {context.invoked_subcommand} -o {output}"
        )


@gpus.command("ls")
@output_option
@pass_daemon
def list_gpus(daemon: Daemon, output: str) -> None:
    """List the GPUs of this host with their readings and who holds them.

    ID is the daemon's lasting number of a GPU; INDEX is the driver's order since the last boot, as nvidia-smi counts.
    A GPU that no session holds is free when it is healthy, enabled and not in quarantine; why it is unhealthy or
    quarantined is told below the table. JSON also has UUIDs, PCI addresses and process ids, with memory in bytes and
    power in milliwatts.

    \b
    Examples:
      medforgectl gpus ls
      medforgectl gpus ls -o json | jq -r '.gpus[] | select(.quarantine) | .id'
    """
    _list(daemon, output)


@gpus.command()
@click.argument("gpu", metavar="ID_OR_UUID", type=reference, shell_complete=complete)
@output_option
@pass_daemon
def enable(daemon: Daemon, gpu: int | str, output: str) -> None:
    """Let a GPU be given to sessions.

    An unhealthy or quarantined GPU stays so: it is given to nobody until that is over, too.

    \b
    Examples:
      medforgectl gpus enable 3
      medforgectl gpus enable GPU-5d2f8a1e-0c6b-4f0e-9a37-2b8e6c1d4f70
    """
    _decide(daemon, methods.gpus_enable, gpu, output, _enabled)


@gpus.command()
@click.argument("gpu", metavar="ID_OR_UUID", type=reference, shell_complete=complete)
@output_option
@pass_daemon
def disable(daemon: Daemon, gpu: int | str, output: str) -> None:
    """Give a GPU to no further session.

    The session that has it keeps it until it ends; medforgectl sessions stop ends it now. It stays disabled until it
    is enabled again, also across restarts.

    \b
    Examples:
      medforgectl gpus disable 3
      medforgectl gpus disable 3 -o json | jq -r .gpu.session_id
    """
    _decide(daemon, methods.gpus_disable, gpu, output, _disabled)


@gpus.command()
@click.argument("gpu", metavar="ID_OR_UUID", type=reference, shell_complete=complete)
@output_option
@pass_daemon
@click.pass_context
def recheck(context: click.Context, daemon: Daemon, gpu: int | str, output: str) -> None:
    """Look at an unhealthy or quarantined GPU again, after what was wrong has been put right.

    What the GPU reported in the past is forgotten; what is still wrong is found anew. Its quarantine ends if nothing of
    a session is left on it. Ends with 1 when the GPU is still unhealthy or quarantined, and says why.

    \b
    Examples:
      medforgectl gpus recheck 3
      medforgectl gpus recheck 3 -o json | jq -r .gpu.quarantine
    """
    looked = _decide(daemon, methods.gpus_recheck, gpu, output, _rechecked)
    if looked.health is not GpuHealth.HEALTHY or looked.quarantine is not None:
        context.exit(ExitCode.FAILED)


def _list(daemon: Daemon, output: str) -> None:
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
        for reason in (gpu.reason, gpu.quarantine):
            if reason:
                print_text(one_line(f"GPU {gpu.id}: {reason}"))
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
        state(gpu),
        # A holder that ended between the two questions is told by its id.
        NONE if gpu.session_id is None else slugs.get(gpu.session_id, str(gpu.session_id)),
    ]


def _decide(
    daemon: Daemon,
    method: Method[GpuRef, GpuResult],
    named: int | str,
    output: str,
    sentence: Callable[[Gpu, str | None], str],
) -> Gpu:
    """Call the method for the GPU that is named, and tell what is now true of it."""

    async def work(client: DaemonClient) -> tuple[GpuResult, str | None]:
        told = await client.call(method, GpuRef(gpu_id=await find(client, named)))
        return told, None if output == "json" else await holder(client, told.gpu)

    with Progress() as progress:
        progress.show(f"waiting for GPU {named}")
        told, slug = daemon.run(work)
    if output == "json":
        print_json(told)
    else:
        print_text(one_line(sentence(told.gpu, slug)))
    return told.gpu


def _enabled(gpu: Gpu, slug: str | None) -> str:
    if wrong := _wrong(gpu):
        return f"GPU {gpu.id} is enabled, but {wrong}"
    return f"GPU {gpu.id} is enabled; session {slug} has it." if slug else f"GPU {gpu.id} is enabled and free."


def _disabled(gpu: Gpu, slug: str | None) -> str:
    what_now = f"session {slug} keeps it until it ends" if slug else "no session will get it"
    return f"GPU {gpu.id} is disabled; {what_now}."


def _rechecked(gpu: Gpu, slug: str | None) -> str:
    if wrong := _wrong(gpu):
        return f"GPU {gpu.id} is still {wrong}"
    if slug:
        return f"GPU {gpu.id} is healthy; session {slug} has it."
    if not gpu.enabled:
        return f"GPU {gpu.id} is healthy, but disabled; give it to sessions with medforgectl gpus enable {gpu.id}."
    return f"GPU {gpu.id} is healthy and free."


def _wrong(gpu: Gpu) -> str:
    """What keeps it from every session, and why; empty where nothing does."""
    found = []
    if gpu.health is not GpuHealth.HEALTHY:
        found.append(f"unhealthy: {gpu.reason or 'the daemon does not say why'}")
    if gpu.quarantine is not None:
        found.append(f"quarantined: {gpu.quarantine}")
    return "; and ".join(found)
