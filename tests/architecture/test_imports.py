"""Dependencies point one way, and whoever only talks to the daemon loads nothing of what the daemon stands on."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.architecture.tree import ROOT

pytestmark = pytest.mark.unit

# What only the daemon's adapters and the two databases may load.
HEAVY = {"docker", "pynvml", "iptc", "pyroute2", "libzfs_core", "sqlalchemy", "aiosqlite", "alembic"}


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


def test_the_contracts_of_imports_hold(capfd: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capfd.readouterr().out


def test_a_broken_contract_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "importing_example"
    package.mkdir()
    for name, source in (("__init__", ""), ("lower", "import importing_example.upper"), ("upper", "")):
        (package / f"{name}.py").write_text(source)
    configuration = tmp_path / "contracts.toml"
    configuration.write_text(
        textwrap.dedent("""
            [tool.importlinter]
            root_package = "importing_example"
            [[tool.importlinter.contracts]]
            name = "layers"
            type = "layers"
            layers = ["importing_example.upper", "importing_example.lower"]
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert lint_imports(config_filename=str(configuration), no_cache=True) != EXIT_STATUS_SUCCESS


@pytest.mark.parametrize(
    "statement",
    [
        "import medforged",
        "import medforged.contract.methods, medforged.contract.watch, medforged.contract.exitcodes",
        "import medforged.client",
        "import cli.main",
        "import medforged.domain.sessions, medforged.ports.state",
    ],
)
def test_clients_load_nothing_heavy(statement: str) -> None:
    tops = {name.partition(".")[0] for name in loaded_by(statement)}
    assert "medforged" in tops
    assert not tops & HEAVY


def test_something_heavy_would_be_seen() -> None:
    assert "sqlalchemy" in loaded_by("import sqlalchemy")


def test_the_daemons_package_loads_nothing_of_itself() -> None:
    assert {name for name in loaded_by("import medforged") if name.startswith("medforged")} == {"medforged"}
