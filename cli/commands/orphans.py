"""Owns `medforgectl cleanup`: what no record explains on this host, and its removal when an operator insists."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TypeVar

import click
import msgspec

from cli.connection import Daemon, pass_daemon
from cli.exitcodes import Failure
from cli.output import count, output_option, print_json, print_table, print_text
from cli.progress import Progress
from cli.text import one_line
from medforged.contract import methods
from medforged.contract.exitcodes import ExitCode
from medforged.contract.methods import Method
from medforged.contract.orphans import ListOrphans, Orphan, OrphanKind, OrphanList, RemoveOrphans

__all__ = ["cleanup"]

P = TypeVar("P", bound=msgspec.Struct)

# How the outcome of a removal is called in the table; a workspace that was kept is as it should be.
_REMOVED, _KEPT, _FAILED = "removed", "kept", "failed"


@click.command()
@click.option("--force", is_flag=True, help="Remove them.")
@click.option("--yes", is_flag=True, help="Do not ask before --force on a terminal.")
@output_option
@pass_daemon
@click.pass_context
def cleanup(context: click.Context, daemon: Daemon, force: bool, yes: bool, output: str) -> None:
    """Show what no record explains on this host: containers, datasets, bridge ports and firewall rules.

    Nothing is removed without --force. A workspace that holds anything, files or snapshots, is never destroyed: even
    --force keeps it, and says so. Who is sure that nobody misses it can destroy it by hand, for ever and with all of
    its snapshots: zfs destroy -r NAME, with the name from the table.

    Ends with 1 when something other than a workspace could not be removed, or when a part of the host could not be
    looked at.

    \b
    Examples:
      medforgectl cleanup
      medforgectl cleanup --force --yes
      medforgectl cleanup -o json | jq -r '.orphans[] | select(.kind == "dataset") | .name'
    """
    told = _call(daemon, methods.orphans_list, ListOrphans(), "looking for what no record explains")
    removal = force and bool(told.orphans)
    if removal:
        if not yes and sys.stdin.isatty():
            _ask(told, output)
        told = _call(daemon, methods.orphans_remove, RemoveOrphans(), "removing what no record explains")
    if output == "json":
        print_json(told)
    else:
        _show(told, removal)
    if told.problems or (removal and any(_outcome(orphan) == _FAILED for orphan in told.orphans)):
        context.exit(ExitCode.FAILED)


def _call(daemon: Daemon, method: Method[P, OrphanList], params: P, waiting_for: str) -> OrphanList:
    with Progress() as progress:
        progress.show(waiting_for)
        return daemon.run(lambda client: client.call(method, params))


def _ask(found: OrphanList, output: str) -> None:
    """Raises Failure unless the person at the terminal agrees; stdout stays JSON alone where JSON was asked for."""
    if output == "table":
        _print_found(found)
    those = count(len(found.orphans), "orphan")
    if not click.confirm(f"Remove {those} from this host, keeping every workspace that holds anything?", err=True):
        raise Failure("nothing was removed", ExitCode.FAILED)


def _show(told: OrphanList, removal: bool) -> None:
    if not told.orphans:
        print_text("Nothing was found that no record explains.")
    elif removal:
        _print_removed(told)
        outcomes = Counter(map(_outcome, told.orphans))
        done = ", ".join(
            f"{outcomes[outcome]} {outcome}" for outcome in (_REMOVED, _KEPT, _FAILED) if outcomes[outcome]
        )
        print_text()
        print_text(f"{count(len(told.orphans), 'orphan')}: {done}.")
    else:
        _print_found(told)
        print_text()
        print_text(f"{count(len(told.orphans), 'orphan')}; see medforgectl cleanup --help for what --force removes.")
    for problem in told.problems:
        print_text(one_line(f"Problem: {problem}"))


def _print_found(told: OrphanList) -> None:
    print_table(["kind", "name", "reason"], [(orphan.kind, orphan.name, orphan.reason) for orphan in told.orphans])


def _print_removed(told: OrphanList) -> None:
    print_table(
        ["kind", "name", "outcome", "message"],
        [(orphan.kind, orphan.name, _outcome(orphan), orphan.message or orphan.reason) for orphan in told.orphans],
    )


def _outcome(orphan: Orphan) -> str:
    if orphan.removed:
        return _REMOVED
    return _KEPT if orphan.kind is OrphanKind.DATASET else _FAILED
