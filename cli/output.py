"""Owns how results are shown: tables for people, the contract's own JSON for programs, progress on a terminal only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec

from cli.text import json_safe, readable

__all__ = [
    "NONE",
    "count",
    "gibibytes",
    "moment",
    "output_option",
    "print_json",
    "print_table",
    "print_text",
    "reading",
]

NONE = "-"

# Words that stand for a state have one colour wherever they are shown.
_STYLES = {
    "ok": "green",
    "running": "green",
    "healthy": "green",
    "free": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "simulated": "yellow",
    "disabled": "yellow",
    "quarantined": "yellow",
    "removed": "green",
    "released": "green",
    "kept": "yellow",
    "pending": "yellow",
    "warning": "yellow",
    "skipped": "yellow",
    "failed": "red",
    "degraded": "red",
    "unhealthy": "red",
    "error": "red",
}
# Not a terminal: no cell is wrapped or cut, whatever reads it.
_UNLIMITED_WIDTH = 100_000

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def output_option(command: Decorated) -> Decorated:
    """The `-o table|json` of every listing, passed as `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="For people (table), or for programs (json).",
    )(command)


def print_json(document: msgspec.Struct) -> None:
    """Write one of the contract's types as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    click.echo(json_safe(text))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows under headings; text in cells is shown as it is, without markup and without control characters."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    colours = terminal and not os.environ.get("NO_COLOR")
    console = Console(
        force_terminal=terminal,
        color_system="auto" if colours else None,
        width=None if terminal else _UNLIMITED_WIDTH,
    )
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, show_edge=False)
    shown = list(rows)
    for place, column in enumerate(columns):
        # On a narrow terminal everything else folds first: a state in two pieces is no word any more.
        states = [len(row[place]) for row in shown if row[place] in _STYLES]
        table.add_column(column.upper(), overflow="fold", min_width=max(states, default=None))
    for row in shown:
        table.add_row(*(Text(readable(cell), style=_STYLES.get(cell, "")) for cell in row))
    # Captured, so that a reader who has gone away is met by click and not by the table's printer.
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print_text(line.rstrip())


def print_text(line: str = "") -> None:
    """Write one line of our own making."""
    click.echo(line, color=True)


def moment(time: datetime | None) -> str:
    """A time to the second, in RFC 3339."""
    return NONE if time is None else time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def gibibytes(number: int | None) -> str:
    """Bytes as GiB with one decimal."""
    return NONE if number is None else f"{number / 2**30:.1f}"


def count(number: int, noun: str) -> str:
    """So many of something, as `1 session` and `2 sessions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def reading(value: int | None, unit: str, divisor: int = 1) -> str:
    """A reading with its unit, or a dash where the device offers none."""
    return NONE if value is None else f"{value // divisor} {unit}"
