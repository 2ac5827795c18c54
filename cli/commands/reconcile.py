"""Owns `medforgectl reconcile`: one pass of making records and host agree, and what was found and done in it."""

from __future__ import annotations

from collections import Counter

import click

from cli.connection import Daemon, pass_daemon
from cli.output import count, output_option, print_json, print_table, print_text
from cli.progress import Progress
from cli.text import one_line
from medforged.contract import methods
from medforged.contract.exitcodes import ExitCode
from medforged.contract.sessions import ReconcileOutcome, ReconcileReport, ReconcileSessions

__all__ = ["reconcile"]

_OPEN = frozenset({ReconcileOutcome.PENDING, ReconcileOutcome.FAILED})


@click.command()
@output_option
@pass_daemon
@click.pass_context
def reconcile(context: click.Context, daemon: Daemon, output: str) -> None:
    """Make records and host agree now, and show what did not match.

    The daemon does this by itself: when it starts, when something happens to a container, and from time to time. Each
    row is one thing that did not match, what was found, and what was done: running and ended are what a session became,
    removed is a container left of an ended session, released a GPU whose quarantine is over. No workspace is destroyed.

    Ends with 0 when everything matches or was put right, and with 1 when something is pending (still being worked on)
    or failed (it is tried again), or when a part of the host could not be looked at. What no record explains is only
    counted here; medforgectl cleanup shows it.

    \b
    Examples:
      medforgectl reconcile
      medforgectl reconcile -o json | jq '.actions[] | select(.outcome == "failed")'
    """
    with Progress() as progress:
        progress.show("waiting for records and host to agree")
        report = daemon.run(lambda client: client.call(methods.sessions_reconcile, ReconcileSessions()))
    if output == "json":
        print_json(report)
    else:
        _show(report)
    if report.problems or any(action.outcome in _OPEN for action in report.actions):
        context.exit(ExitCode.FAILED)


def _show(report: ReconcileReport) -> None:
    if report.actions:
        print_table(
            ["subject", "found", "outcome", "message"],
            [(action.subject, action.found, action.outcome, action.message) for action in report.actions],
        )
        print_text()
    for problem in report.problems:
        print_text(one_line(f"Could not look for orphans: {problem}"))
    print_text(_summary(report))


def _summary(report: ReconcileReport) -> str:
    counted = Counter(action.outcome for action in report.actions)
    done = [f"{counted[outcome]} {outcome}" for outcome in ReconcileOutcome if counted[outcome]]
    if not done:
        done = ["everything matches"]
    else:
        done.append("the daemon goes on by itself" if _OPEN & counted.keys() else "nothing else to do")
    text = f"Looked at {count(report.sessions, 'session')} in {report.seconds:.2f} s: {', '.join(done)}"
    if report.orphans:
        text += f"; {count(report.orphans, 'orphan')}, see medforgectl cleanup"
    return f"{text}."
