"""medforgectl as a shell starts it: a process of its own, against one socket."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.cli.warm import Warm

ROOT = Path(__file__).parents[3]


_PROGRAM = [sys.executable, "-c", "from cli.main import main; main()"]
_ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TERM": "xterm"}


@contextlib.contextmanager
def loaded() -> Iterator[Warm]:
    """The program, ready to be forked."""
    with Warm([sys.executable], _ENVIRONMENT) as warm:
        yield warm


class Medforgectl:
    """The real program against one socket: started, as a shell would, or forked from one that has been loaded."""

    def __init__(self, socket: Path, warm: Warm | None = None) -> None:
        self._warm = warm
        self.argv = [*_PROGRAM, "--socket", str(socket)]
        self.environment = dict(_ENVIRONMENT)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        if self._warm is not None and self._starts_alike():
            return self._warm.run([*self.argv[len(_PROGRAM) :], *arguments], self.environment)
        return subprocess.run(
            [*self.argv, *arguments],
            env=self.environment,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )

    def be_impatient(self) -> None:
        """Wait a moment, and not ten seconds, for a daemon that says that it restarts."""
        patience = "c.DaemonClient = functools.partial(c.DaemonClient, patience_seconds=0.2)"
        self.argv[2] = f"import functools, medforged.client as c; {patience}; {self.argv[2]}"

    def _starts_alike(self) -> bool:
        """Whether the test has changed nothing that Python looks at as it starts."""
        seen = [
            {name: value for name, value in environment.items() if name.startswith(("PYTHON", "LC_", "LANG"))}
            for environment in (self.environment, _ENVIRONMENT)
        ]
        return self.argv[: len(_PROGRAM)] == _PROGRAM and seen[0] == seen[1]

    @contextlib.contextmanager
    def started(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """The program while it runs; killed at the end if it still does."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        with subprocess.Popen([*self.argv, *arguments], env=self.environment, text=True, **streams) as process:
            try:
                yield process
            finally:
                process.kill()
