"""Owns `medforgectl completion`: the script that teaches a shell to complete medforgectl's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command()
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    Commands, options and their values are completed, the slugs of active sessions where a session is asked for, and
    the ids and UUIDs of GPUs where a GPU is.

    \b
    Examples:
      medforgectl completion bash > /etc/bash_completion.d/medforgectl
      medforgectl completion zsh > "${fpath[1]}/_medforgectl"
      medforgectl completion fish > ~/.config/fish/completions/medforgectl.fish
    """
    program = context.find_root()
    completer = get_completion_class(shell)
    assert completer is not None, "click has all of the shells that the argument allows"
    # The variable's name is click's own rule, by which the finished program recognises a request to complete.
    script = completer(program.command, {}, "medforgectl", "_MEDFORGECTL_COMPLETE").source()
    click.echo(script)
