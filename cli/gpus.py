"""Owns GPUs as people name and read them: which one an id or a UUID means, and the one word for its state."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from cli.connection import Daemon
from cli.exitcodes import Failure
from cli.text import one_line
from medforged.contract import methods
from medforged.contract.exitcodes import ExitCode
from medforged.contract.gpus import Gpu, GpuHealth, ListGpus
from medforged.contract.sessions import SessionRef

if TYPE_CHECKING:
    from medforged.client import DaemonClient

__all__ = ["complete", "find", "holder", "reference", "state"]

# Ids are the daemon's own, counted up from the first GPU; more digits than these are somebody's mistake.
_ID = re.compile(r"[0-9]{1,9}")
_UUID = re.compile(r"GPU-[0-9A-Za-z-]+")


def reference(text: str) -> int | str:
    """A GPU as a person names it: its id (an int) or its UUID (a str). Raises click's usage error for neither."""
    if _UUID.fullmatch(text):
        return text
    if _ID.fullmatch(text):
        return int(text)
    raise click.BadParameter(f"{text!r} is neither a GPU's id nor its UUID (GPU-...)")


def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ids of known GPUs, and their UUIDs once one is begun; none where the daemon does not answer."""
    # While completing, no command runs, so nobody has made the Daemon of the context.
    daemon = Daemon(context.find_root().params.get("socket"))
    try:
        known = daemon.run(lambda client: client.call(methods.gpus_list, ListGpus())).gpus
    except Failure:
        return []
    return [
        CompletionItem(name, help=one_line(f"{gpu.name}, {state(gpu)}"))
        for gpu in known
        for name in (str(gpu.id), *([gpu.uuid] if incomplete and _UUID.fullmatch(gpu.uuid) else []))
        if name.startswith(incomplete)
    ]


async def find(client: DaemonClient, named: int | str) -> int:
    """The id of the GPU that is named. Raises Failure for a UUID that no GPU has; an id is for the daemon to judge."""
    if isinstance(named, int):
        return named
    for gpu in (await client.call(methods.gpus_list, ListGpus())).gpus:
        if gpu.uuid == named:
            return gpu.id
    raise Failure(
        f"cannot find GPU {named}: no GPU of this host has this UUID; list them with medforgectl gpus -o json",
        ExitCode.NOT_FOUND,
    )


async def holder(client: DaemonClient, gpu: Gpu) -> str | None:
    """The slug of the session that has the GPU, or None where no session has it."""
    from medforged.client import DaemonError

    if gpu.session_id is None:
        return None
    try:
        return (await client.call(methods.sessions_get, SessionRef(session_id=gpu.session_id))).session.slug
    except DaemonError:
        # What was asked for has been done by now: that is told, and the session by its id.
        return str(gpu.session_id)


def state(gpu: Gpu) -> str:
    """The one word for it; what keeps it from every session comes before what an operator or a session has done."""
    if gpu.health is not GpuHealth.HEALTHY:
        return "unhealthy"
    if gpu.quarantine is not None:
        return "quarantined"
    if not gpu.enabled:
        return "disabled"
    return "free" if gpu.session_id is None else "held"
