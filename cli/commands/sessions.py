"""Owns `medforgectl sessions`: list, show, stop, and the output of a session's container."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import click

from cli import stopping
from cli.connection import Daemon, pass_daemon
from cli.exitcodes import Failure
from cli.output import NONE, moment, output_option, print_json, print_table
from cli.progress import Progress
from cli.sessions import ACTIVE, active, complete, find, page, reference
from cli.text import readable
from medforged.contract import methods
from medforged.contract.exitcodes import ExitCode
from medforged.contract.sessions import SessionLogs, SessionResult, SessionStatus

if TYPE_CHECKING:
    from medforged.client import DaemonClient

__all__ = ["list_sessions", "logs", "sessions", "show", "stop"]


@click.group()
def sessions() -> None:
    """List, show and stop sessions, and read what they wrote.

    A session is named by its id or by its slug, the part of its address after s-.

    \b
    Examples:
      medforgectl sessions ls
      medforgectl sessions stop abcd2345
    """


@sessions.command("ls")
@click.option("--user", type=click.UUID, metavar="UUID", help="Only this user's sessions.")
@click.option(
    "--status",
    "statuses",
    type=click.Choice([status.value for status in SessionStatus]),
    multiple=True,
    help="Only sessions in this status; can be given more than once.",
)
@click.option("--all", "everything", is_flag=True, help="Ended sessions too.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="NUMBER",
    help="At most so many, the newest first.",
)
@output_option
@pass_daemon
def list_sessions(
    daemon: Daemon, user: UUID | None, statuses: Sequence[str], everything: bool, limit: int, output: str
) -> None:
    """List sessions, newest first; only active ones unless told otherwise.

    \b
    Examples:
      medforgectl sessions ls
      medforgectl sessions ls --all --limit 20
      medforgectl sessions ls --status error --user 4b1d3c6e-8f0a-4a5e-9c53-0d5f6f0b7c11
      medforgectl sessions ls -o json | jq -r '.sessions[].slug'
    """
    if everything and statuses:
        raise click.UsageError("--all and --status exclude each other: --status already says which sessions are meant")
    wanted = () if everything else tuple(map(SessionStatus, statuses)) or ACTIVE
    found = daemon.run(lambda client: page(client, wanted, user, limit))
    if output == "json":
        print_json(found)
        return
    print_table(
        ["slug", "status", "gpu", "tier", "created", "user", "message"],
        [
            (
                session.slug,
                session.status,
                str(session.gpu_id),
                session.tier,
                moment(session.created_at),
                str(session.user_id),
                session.error_message or "",
            )
            for session in found.sessions
        ],
    )
    if found.has_more:
        click.echo(f"There are more than these {len(found.sessions)}: raise --limit to see them.", err=True)


@sessions.command()
@click.argument("session", metavar="ID_OR_SLUG", type=reference, shell_complete=complete)
@output_option
@pass_daemon
def show(daemon: Daemon, session: UUID | str, output: str) -> None:
    """Show everything that is recorded about a session.

    \b
    Examples:
      medforgectl sessions show abcd2345
      medforgectl sessions show abcd2345 -o json | jq -r .session.workspace_zfs
    """
    found = daemon.run(lambda client: find(client, session))
    if output == "json":
        print_json(SessionResult(session=found))
        return
    print_table(
        ["field", "value"],
        [
            ("id", str(found.id)),
            ("slug", found.slug),
            ("status", found.status),
            # Of a session that has ended it says no more than the status does.
            *([("step", found.step)] if found.status in ACTIVE else []),
            ("message", found.error_message or NONE),
            ("user", str(found.user_id)),
            ("tier", found.tier),
            ("pack", str(found.pack_id)),
            ("gpu", f"{found.gpu_id} ({found.gpu_uuid})"),
            ("container", found.container_id or NONE),
            ("workspace", found.workspace_zfs),
            ("created", moment(found.created_at)),
            ("started", moment(found.started_at)),
            ("ended", moment(found.stopped_at)),
        ],
    )


@sessions.command()
@click.argument("references", metavar="[ID_OR_SLUG]...", type=reference, shell_complete=complete, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every active session of this host.")
@click.option("--yes", is_flag=True, help="Do not ask before --all on a terminal.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the sessions have ended.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait; the daemon goes on after that.",
)
@pass_daemon
def stop(
    daemon: Daemon, references: Sequence[UUID | str], everything: bool, yes: bool, wait: bool, timeout: float
) -> None:
    """Stop sessions. Their workspaces are snapshotted and kept.

    Nothing is stopped when one of the sessions named does not exist. A session that has ended already is no failure;
    one that ends in status error (its snapshot failed) is. Prints one line for each session as it ends.

    \b
    Examples:
      medforgectl sessions stop abcd2345
      medforgectl sessions stop --no-wait abcd2345 efgh6723
      medforgectl sessions stop --all --timeout 300
    """
    if everything == bool(references):
        raise click.UsageError("name the sessions to stop, or give --all for every active one")
    ask = everything and not yes and sys.stdin.isatty()
    if ask and not click.confirm("Stop every active session of this host?", err=True):
        raise Failure("nothing was stopped", ExitCode.FAILED)

    async def work(client: DaemonClient) -> None:
        meant = [await find(client, named) for named in references] if references else await active(client)
        once = {session.id: session for session in meant}
        await stopping.stop(client, once.values(), progress, timeout if wait else None)

    with Progress() as progress:
        daemon.run(work)


@sessions.command()
@click.argument("session", metavar="ID_OR_SLUG", type=reference, shell_complete=complete)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=1, max=10_000),
    default=200,
    show_default=True,
    metavar="NUMBER",
    help="How many of the last lines.",
)
@pass_daemon
def logs(daemon: Daemon, session: UUID | str, lines: int) -> None:
    """Show the last lines that a session's container wrote.

    What is shown is the tenant's own text. On a terminal its control characters and escape sequences are shown, not
    obeyed; a file or a pipe gets the text as it is.

    \b
    Examples:
      medforgectl sessions logs abcd2345
      medforgectl sessions logs abcd2345 -n 10000 > abcd2345.log
    """

    async def work(client: DaemonClient) -> str:
        found = await find(client, session)
        return (await client.call(methods.sessions_logs, SessionLogs(session_id=found.id, lines=lines))).text

    text = daemon.run(work)
    if sys.stdout.isatty():
        text = readable(text.replace("\r\n", "\n"), keep="\n\t")
    # Without `color`, click would take the escape sequences out of what a file gets.
    click.echo(text, nl=bool(text) and not text.endswith("\n"), color=True)
