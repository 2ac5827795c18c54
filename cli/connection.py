"""Owns running one command's work against daemon or facade, and turning their refusals into failures of the command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from cli.exitcodes import Failure, exit_code
from cli.text import one_line
from medforged.contract.errors import ErrorCode

if TYPE_CHECKING:
    from medforged.client import Called, DaemonClient, DaemonError

__all__ = ["DEFAULT_OPERATOR_SOCKET", "Daemon", "Facade", "failure", "pass_daemon", "pass_facade"]

# In the daemon's folder, which is root's; the facade's own is the one that the proxy sees.
_OPERATOR_SOCKET = "operators.sock"
DEFAULT_OPERATOR_SOCKET = Path("/run/medforge", _OPERATOR_SOCKET)

T = TypeVar("T")

# Their message alone does not say what happened; the journal does, under the correlation id.
_TOLD_IN_THE_JOURNAL = frozenset({ErrorCode.INTERNAL, ErrorCode.HOST_FAILED, ErrorCode.CREATE_FAILED})


@dataclass(frozen=True, slots=True)
class Daemon:
    """Where the daemon is; None stands for the client's own default."""

    socket: Path | None

    def run(self, work: Callable[[DaemonClient], Awaitable[T]]) -> T:
        """Run `work` with a client of its own. Raises Failure for whatever the daemon refuses."""
        # The client loads an HTTP library, which `--help` and shell completion of words need not wait for.
        from medforged.client import DAEMON, DEFAULT_SOCKET

        return _run(self.socket or DEFAULT_SOCKET, DAEMON, work)


@dataclass(frozen=True, slots=True)
class Facade:
    """Where the facade listens to operators: beside the daemon unless said."""

    socket: Path

    @classmethod
    def of(cls, context: click.Context) -> Facade:
        """The one that the program's options name."""
        options = context.find_root().params
        daemon: Path | None = options.get("socket")
        beside = DEFAULT_OPERATOR_SOCKET if daemon is None else daemon.with_name(_OPERATOR_SOCKET)
        return cls(options.get("operator_socket") or beside)

    def run(self, work: Callable[[DaemonClient], Awaitable[T]]) -> T:
        """Run `work` with a client of its own. Raises Failure for whatever the facade refuses."""
        from medforged.client import FACADE

        return _run(self.socket, FACADE, work)


def _run(socket: Path, called: Called, work: Callable[[DaemonClient], Awaitable[T]]) -> T:
    from medforged.client import DaemonClient, DaemonError

    async def connected() -> T:
        async with DaemonClient(socket, called=called) as client:
            return await work(client)

    try:
        return asyncio.run(connected())
    except DaemonError as error:
        raise failure(error) from error


def failure(error: DaemonError) -> Failure:
    """What the program answered, as a failure of the command."""
    message = one_line(error.message)
    if error.code in _TOLD_IN_THE_JOURNAL and error.correlation_id:
        message += f" (correlation id {one_line(error.correlation_id)})"
    return Failure(message, exit_code(error.code, error.__cause__))


pass_daemon = click.make_pass_decorator(Daemon)
pass_facade = click.make_pass_decorator(Facade)
