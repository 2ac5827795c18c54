"""Owns docs/reference/medforgectl.md."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from cli.main import medforgectl
from ops.reference.markdown import code, document, table


def page() -> str:
    """The page, whole."""
    context = click.Context(medforgectl, info_name="medforgectl")
    blocks = [block for inner in _commands(context) for block in _section(inner)]
    return document(
        "# medforgectl",
        "The operator's command line. What each command ends with is told in [exit codes](exit-codes.md); the shape of "
        "its JSON is that of the [daemon's socket](rpc.md), of `users` that of the "
        "[facade's operator socket](operator-rpc.md). There are no colours where `NO_COLOR` is set or stdout is not a "
        "terminal.",
        *blocks,
    )


def _commands(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name, inner in sorted(context.command.commands.items()):
            yield from _commands(click.Context(inner, info_name=name, parent=context))


def _section(context: click.Context) -> list[str]:
    path = context.command_path
    usage = " ".join([path, *context.command.collect_usage_pieces(context)])
    # \b is click's mark for a paragraph that it must not fill; here those are the examples.
    text, _, examples = inspect.cleandoc(context.command.help or "").partition("\b\nExamples:\n")
    return [
        f"## {path}",
        f"```text\n{usage}\n```",
        text,
        table(["option", "meaning", "default"], _options(context)),
        f"```sh\n{inspect.cleandoc(examples)}\n```",
    ]


def _options(context: click.Context) -> Iterator[list[str]]:
    for option in context.command.get_params(context):
        record = option.get_help_record(context)
        if not isinstance(option, click.Option) or record is None:
            continue
        meaning = option.help or ""
        if option.envvar:
            meaning += f" Variable: {code(option.envvar)}."
        yield [code(record[0]), meaning, _default(option, context)]


def _default(option: click.Option, context: click.Context) -> str:
    if not option.show_default:
        return ""
    if isinstance(option.show_default, str):
        return code(option.show_default)
    if option.secondary_opts:
        return code((option.opts if option.default else option.secondary_opts)[0])
    return code(option.get_default(context))
