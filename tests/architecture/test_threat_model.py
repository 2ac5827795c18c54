"""Every attack of the threat model has tests, and every test that it names is there to be run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.architecture.tree import ROOT, read

pytestmark = pytest.mark.unit

PAGE = "docs/threat-model.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def attacks(page: str) -> Iterator[tuple[str, str]]:
    """Each row of the tables of attacks: the attack, and the cell of its tests."""
    for table in re.findall(r"^\| attack \| .* \| test \|\n\|[ -|]+\|\n((?:\|.*\|\n)+)", page, re.MULTILINE):
        for row in table.splitlines():
            cells = row.strip("|").split(" | ")
            assert len(cells) == 3, row
            yield cells[0].strip(), cells[2]


def faults(page: str) -> list[str]:
    """What is not tested, and what names a test that is not there."""
    found = []
    for attack, cell in attacks(page):
        named = TEST.findall(cell)
        if not named or TEST.sub("", cell).replace("<br>", "").strip():
            found.append(f"{attack}: {cell}")
        found += [f"{path}::{name}" for path, name in named if name not in names_in(path)]
    return found


def names_in(path: str) -> set[str]:
    """The names of a module's tests; none where there is no such module."""
    file = ROOT / path
    if not file.is_file():
        return set()
    tree = ast.parse(file.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_attack_has_a_test_that_exists() -> None:
    page = read(PAGE)
    assert faults(page) == []
    # Each border has its table, and no attack stands in a table of another form.
    assert page.count("| attack | what stands against it | test |") == page.count("\n### ") == 4
    assert len(list(attacks(page))) > 50


@pytest.mark.parametrize(
    "row",
    [
        "| an attack | nothing | |",
        "| an attack | something | `tests/architecture/test_threat_model.py` |",
        "| an attack | something | `tests/architecture/test_threat_model.py::test_that_is_not_there` |",
        "| an attack | something | `tests/nowhere.py::test_every_attack_has_a_test_that_exists` |",
        "| an attack | something | we looked at it |",
    ],
)
def test_an_attack_without_one_is_noticed(row: str) -> None:
    page = f"| attack | what stands against it | test |\n| --- | --- | --- |\n{row}\n"
    assert faults(page) != []
