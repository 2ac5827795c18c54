"""Owns the line that tells a person what a command waits for; it exists on a terminal only, and on stderr."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cli.output import print_text

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["Progress"]


class Progress:
    """A context in which `show` replaces the line and `say` writes a line of result to stdout, past it."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, color_system=None if os.environ.get("NO_COLOR") else "auto")
            # Results go to stdout, which may be a file: never through the console of stderr.
            self._live = Live(console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, text: str) -> None:
        """Replace what is being waited for."""
        if self._live is not None:
            from rich.spinner import Spinner
            from rich.text import Text

            self._live.update(Spinner("line", Text(text)))

    def say(self, line: str) -> None:
        """Write one line of result to stdout."""
        if self._live is None:
            print_text(line)
            return
        self._live.stop()
        print_text(line)
        self._live.start()
