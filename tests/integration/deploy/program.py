"""Owns running the installer's modules as programs of the distribution's Python, on folders of a test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LIBRARY = ROOT / "deploy" / "lib"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{ROOT / 'ops' / 'lib'}:{LIBRARY}",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def program(name: str, *arguments: str | Path, become: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run one of the modules that are programs; `become`: what it is started by, to be somebody else."""
    return _run([*become, sys.executable, LIBRARY / name, *arguments])


def inside(code: str) -> subprocess.CompletedProcess[str]:
    """Run code that imports the modules."""
    return _run([sys.executable, "-c", code])


def _run(argv: list[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in argv], env=ENVIRONMENT, text=True, capture_output=True, timeout=100, check=False
    )
