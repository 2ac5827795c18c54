"""Owns `medforgectl logs`: what daemon and facade have told the journal, by session, user, event or request."""

from __future__ import annotations

import re

import click

from cli.journal import become_journalctl
from cli.output import output_option

__all__ = ["logs", "matches"]

_UNITS = ("medforged.service", "medforge-facade.service")
_SLUG = re.compile(r"[a-z2-7]{8}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EVENT = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_CORRELATION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PRIORITIES = ("err", "warning", "info", "debug")


@click.command()
@click.argument("session", required=False)
@click.option("--user", help="Of this user: the id, as `medforgectl users ls` shows it.")
@click.option("--event", help="Of this kind, like session.stop.")
@click.option("--correlation", help="Of one request, from the facade to the host: the id that error messages name.")
@click.option("-p", "--priority", type=click.Choice(_PRIORITIES), help="At least this severe.  [default: everything]")
@click.option("-n", "--lines", type=click.IntRange(min=1), default=200, show_default=True, help="The last so many.")
@click.option("--since", help="Not older: a time as journalctl takes it, like -1h or 2026-01-31.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@output_option
def logs(session: str | None, lines: int, priority: str | None, output: str, **options: str | bool | None) -> None:
    """Show what daemon and facade have told the journal.

    SESSION is a slug or an id; with it the whole story of that session is shown, from its creation to its last
    snapshot. What its container has written is shown by medforgectl sessions logs.

    Needs root, or membership in systemd-journal or adm. Where there is no journal, daemon and facade write JSON lines
    to standard error instead.

    \b
    Examples:
      medforgectl logs abcd2345
      medforgectl logs --event session.stop --since -1d
      medforgectl logs -p warning -f
      medforgectl logs abcd2345 -o json | jq -r .MESSAGE
    """
    arguments = [f"--unit={unit}" for unit in _UNITS]
    arguments += [f"--lines={lines}", "--output=json" if output == "json" else "--output=short-iso", "--no-hostname"]
    if priority is not None:
        arguments.append(f"--priority={priority}")
    if options["since"]:
        arguments.append(f"--since={options['since']}")
    if options["follow"]:
        arguments.append("--follow")
    wanted = matches(session, *(_text(options[name]) for name in ("user", "event", "correlation")))
    become_journalctl([*arguments, *wanted])


def matches(session: str | None, user: str | None, event: str | None, correlation: str | None) -> list[str]:
    """The journal's own matches, all of which have to hold. Raises click.BadParameter for what can never match."""
    found = []
    if session is not None:
        if _SLUG.fullmatch(session):
            found.append(f"SLUG={session}")
        elif _UUID.fullmatch(session):
            found.append(f"SESSION_ID={session}")
        else:
            raise click.BadParameter(f"{session!r} is neither a slug (8 letters and digits) nor a session's id")
    for field, value, pattern, told in (
        ("USER_ID", user, _UUID, "a user's id"),
        ("EVENT", event, _EVENT, "the name of an event"),
        ("CORRELATION_ID", correlation, _CORRELATION, "a correlation id"),
    ):
        if value is None:
            continue
        if not pattern.fullmatch(value):
            raise click.BadParameter(f"{value!r} is not {told}")
        found.append(f"{field}={value}")
    return found


def _text(value: str | bool | None) -> str | None:
    return value if isinstance(value, str) else None
