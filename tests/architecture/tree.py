"""The tree that the checks look at: tracked files, and modules parsed once."""

from __future__ import annotations

import ast
import functools
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("medforged", "facade", "cli")


@dataclass(frozen=True)
class Module:
    """One Python file: its path relative to the root, and its source."""

    path: PurePosixPath
    source: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, str(self.path))

    @property
    def package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def migration(self) -> bool:
        """Files of alembic's making: named and shaped by it."""
        return "migrations" in self.path.parts


@functools.cache
def tracked() -> tuple[PurePosixPath, ...]:
    """Every file that git tracks and that is still there."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, text=True)
    found = tuple(PurePosixPath(name) for name in listed.stdout.split("\0") if name)
    assert found, "git tracks nothing here"
    return tuple(path for path in found if (ROOT / path).is_file())


@functools.cache
def modules(*tops: str) -> tuple[Module, ...]:
    """The Python modules below some top-level folders."""
    found = [path for path in tracked() if path.suffix == ".py" and path.parts[0] in tops]
    assert found, f"there is no module in {tops}"
    return tuple(Module(path, read(path)) for path in found)


def read(path: PurePosixPath | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
