"""Owns `medforgectl doctor`: every precondition of host and site, each with its remedy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from importlib.metadata import entry_points

import click

from cli.exitcodes import DIAGNOSIS_CODES, Failure
from cli.output import output_option, print_json, print_table, print_text
from cli.progress import Progress
from cli.text import one_line
from medforged.contract.doctor import Diagnosis, Examination, Verdict
from medforged.contract.exitcodes import ExitCode

__all__ = ["doctor"]

# Who knows what is to be looked at: daemon and facade, each for its own part. Loaded when it is asked for, and never
# with medforgectl itself, since it loads every library that the daemon uses.
_GROUP = "medforge.doctor"
Examine = Callable[[], Awaitable[list[Examination]]]


@click.command()
@output_option
@click.option("-q", "--quiet", is_flag=True, help="Show only what is not well.")
@click.pass_context
def doctor(context: click.Context, output: str, *, quiet: bool) -> None:
    """Look at every precondition of this host and its site, and say what to do about each that does not hold.

    Needs root, and neither the daemon nor Docker: what does not answer is one of the findings. Settings, Docker, ZFS,
    GPUs, kernel and clock are looked at, then daemon and facade, then names, certificates and answers of the site as
    a browser sees them. Nothing is changed.

    Ends with 0 when nothing has failed (warnings may be left), else with the code of the first failed kind of these:
    configuration 78, permissions 77, host 69, services 75, site 1.

    \b
    Examples:
      medforgectl doctor
      medforgectl doctor -q
      medforgectl doctor -o json | jq '.examinations[] | select(.verdict == "failed")'
    """
    if os.geteuid() != 0:
        raise Failure("cannot look at the whole host: run it as root", ExitCode.NO_PERMISSION)
    with Progress() as progress:
        progress.show("looking at host and site")
        examinations = asyncio.run(_examine())
    shown = [one for one in examinations if not quiet or one.verdict in (Verdict.WARNING, Verdict.FAILED)]
    if output == "json":
        print_json(Diagnosis(examinations=shown))
    else:
        _show(shown, examinations)
    context.exit(_code(examinations))


async def _examine() -> list[Examination]:
    found: list[Examination] = []
    for entry in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        examine: Examine = entry.load()
        found += await examine()
    return found


def _code(examinations: list[Examination]) -> ExitCode:
    failing = {one.kind for one in examinations if one.verdict is Verdict.FAILED}
    return next((code for kind, code in DIAGNOSIS_CODES.items() if kind in failing), ExitCode.OK)


def _show(shown: list[Examination], examinations: list[Examination]) -> None:
    if shown:
        print_table(
            ["kind", "subject", "verdict", "message"],
            [(one.kind, one.subject, one.verdict, one.message) for one in shown],
        )
        print_text()
    for one in shown:
        if one.remedy:
            print_text(one_line(f"{one.subject}: {one.remedy}"))
    counts = ", ".join(f"{sum(one.verdict is verdict for one in examinations)} {verdict.value}" for verdict in Verdict)
    print_text(f"Looked at {len(examinations)} preconditions: {counts}.")
