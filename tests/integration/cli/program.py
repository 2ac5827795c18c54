"""medforgectl as a shell starts it: a process of its own, against one socket."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


class Medforgectl:
    """Starts the real program, as a shell would, against one socket."""

    def __init__(self, socket: Path) -> None:
        self.argv = [sys.executable, "-c", "from cli.main import main; main()", "--socket", str(socket)]
        self.environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TERM": "xterm"}

    def __call__(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.argv, *arguments],
            env=self.environment,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
            **options,
        )

    @contextlib.contextmanager
    def started(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """The program while it runs; killed at the end if it still does."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        with subprocess.Popen([*self.argv, *arguments], env=self.environment, text=True, **streams) as process:
            try:
                yield process
            finally:
                process.kill()
