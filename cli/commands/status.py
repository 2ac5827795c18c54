"""Owns `medforgectl status`: how the daemon is, what serves its parts, and what is in use."""

from __future__ import annotations

import click

from cli.connection import Daemon, pass_daemon
from cli.output import moment, output_option, print_json, print_table, print_text
from cli.text import one_line
from medforged.contract import methods
from medforged.contract.daemon import DaemonStatus, GetStatus, Health
from medforged.contract.exitcodes import ExitCode

__all__ = ["status"]


@click.command()
@output_option
@pass_daemon
@click.pass_context
def status(context: click.Context, daemon: Daemon, output: str) -> None:
    """Show the daemon's health, its adapters, and how many sessions and GPUs are in use.

    Ends with 0 when the daemon is well and with 1 when it is degraded, so that a monitor needs no more than the exit
    code. Adapters that only simulate a part of the host say so.

    \b
    Examples:
      medforgectl status
      medforgectl status -o json | jq '.checks[] | select(.health != "ok")'
    """
    told = daemon.run(lambda client: client.call(methods.daemon_status, GetStatus()))
    if output == "json":
        print_json(told)
    else:
        _show(told)
    if told.health is not Health.OK:
        context.exit(ExitCode.FAILED)


def _show(told: DaemonStatus) -> None:
    print_text(
        one_line(f"medforged {told.version} ({told.instance}), started {moment(told.started_at)}: {told.health}")
    )
    counts = ", ".join(f"{count} {status}" for status, count in told.sessions_by_status.items())
    print_text(one_line(f"GPUs: {told.gpus_free} of {told.gpus_total} free"))
    print_text(one_line(f"Sessions: {counts or 'none active'}"))
    print_text()
    print_table(["check", "health", "message"], [(check.name, check.health, check.message) for check in told.checks])
    print_text()
    print_table(
        ["part", "adapter", "kind", "reason"],
        [
            (adapter.port, adapter.adapter, "real" if adapter.real else "simulated", adapter.reason)
            for adapter in told.adapters
        ],
    )
