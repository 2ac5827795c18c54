"""Documents are true as far as a program can tell: generated pages, links, paths, commands, numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import unquote

import click
import msgspec
import pytest

import facade.config
import medforged.config
from cli.main import medforgectl
from facade.metrics.collection import METRICS as FACADE_METRICS
from medforged.contract.errors import ErrorCode
from medforged.contract.exitcodes import ExitCode
from medforged.contract.methods import METHODS
from medforged.contract.operators import OPERATOR_METHODS
from medforged.metrics.collection import METRICS as DAEMON_METRICS
from ops.reference.pages import PAGES
from tests.architecture.markdown import anchors, links, medforgectl_calls, spans
from tests.architecture.tree import ROOT, read, tracked

pytestmark = pytest.mark.unit

DOCUMENTS = [path for path in tracked() if path.suffix == ".md" and path.parts[0] not in ("node_modules", "web")]
TOPS = {path.parts[0] for path in tracked() if len(path.parts) > 1}
SOURCES = {".py", ".sh", ".ts", ".js", ".cjs", ".toml", ".service", ".socket", ".conf"}
# A path that a reader could open: below a top-level folder, of plain characters.
PATH = re.compile(rf"(?:\./)?((?:{'|'.join(sorted(map(re.escape, TOPS)))})/[A-Za-z0-9_.@/-]*[A-Za-z0-9_/])")


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert read(name) == PAGES[name](), "run ops/docs"


def test_every_method_and_error_code_is_documented() -> None:
    for name, methods in (("rpc", METHODS), ("operator-rpc", OPERATOR_METHODS)):
        page = read(f"docs/reference/{name}.md")
        for method in methods:
            assert f"### POST /v1/{method.name}\n\n{method.summary}" in page
            assert method.summary
    page = read("docs/reference/rpc.md")
    rows = table_rows(page)
    for code in ErrorCode:
        assert rows[f"`{code.value}`"][-1], f"{code.name} has no meaning"


def test_every_exit_code_is_documented() -> None:
    rows = table_rows(read("docs/reference/exit-codes.md"))
    for code in ExitCode:
        assert rows[f"`{code.value}`"][0] == code.name
        assert rows[f"`{code.value}`"][1], f"{code.name} has no meaning"


def test_every_command_is_documented() -> None:
    headings = set(re.findall(r"^## (medforgectl.*)$", read("docs/reference/medforgectl.md"), re.MULTILINE))
    assert headings == {" ".join(["medforgectl", *path]) for path in commands(medforgectl)}


@pytest.mark.parametrize("module", [medforged.config, facade.config], ids=["medforged", "facade"])
def test_every_setting_has_a_sentence(module: object) -> None:
    page = read("docs/reference/configuration.md")
    start = page.index(f"Prefix of variables: `{module.PREFIX}`")
    undocumented = []
    for section in msgspec.structs.fields(module.Settings):
        part = page[page.index(f"### [{section.name}]", start) :].partition("\n### ")[0]
        rows = table_rows(part)
        keys = [field.name for field in msgspec.structs.fields(section.type)]
        undocumented += [f"{section.name}.{key}" for key in keys if not rows[f"`{key}`"][-1].partition("Also ")[0]]
    assert undocumented == []


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    rows = {
        name.strip("`"): set(re.findall(r"`(\w+)`", cells[0]))
        for name, cells in table_rows(read("docs/how-to/monitor.md")).items()
        if re.match(r"`(medforge|process)\w*_", name)
    }
    assert rows == {metric.name: set(metric.labels) for metric in (*DAEMON_METRICS, *FACADE_METRICS)}


def test_the_changelog_has_a_place_for_what_comes() -> None:
    changelog = read("CHANGELOG.md")
    sections = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert sections[0] == "Unreleased"
    kinds = set(re.findall(r"^### (.+)$", changelog, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_decisions_are_numbered_without_gaps_and_complete() -> None:
    records = sorted(path for path in DOCUMENTS if path.parts[:2] == ("docs", "decisions"))
    assert records
    for number, path in enumerate(records, start=1):
        assert path.name.startswith(f"{number:04d}-"), path
        text = read(path)
        assert text.startswith(f"# {number}. ")
        parts = ["Context", "Decision", "Consequences", "Alternatives"]
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == parts, path


def test_the_index_leads_to_every_document() -> None:
    index = PurePosixPath("docs/index.md")
    reached = {str(index.parent / link.partition("#")[0]) for link in links(read(index))}
    inside = {str(path) for path in DOCUMENTS if path.parts[0] == "docs"} - {str(index)}
    assert inside - reached == set()


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^\| ([^|]+?) \|", read("docs/glossary.md"), re.MULTILINE)[2:]
    assert words == sorted(set(words), key=str.casefold)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_what_a_document_points_to_is_there(document: PurePosixPath) -> None:
    text = read(document)
    assert [*dead_links(document, text), *dead_paths(text), *unknown_commands(text)] == []


def test_documents_that_the_code_names_are_there() -> None:
    named = {
        (str(path), name)
        for path in tracked()
        if path.suffix in SOURCES or not path.suffix
        for name in re.findall(r"\bdocs/[A-Za-z0-9_/-]+\.md\b", read(path))
    }
    assert ("cli/exitcodes.py", "docs/reference/exit-codes.md") in named
    assert sorted((path, name) for path, name in named if not (ROOT / name).is_file()) == []


def test_what_is_not_there_is_seen() -> None:
    here = PurePosixPath("docs/index.md")
    assert dead_links(here, "[a](nowhere.md)") == ["nowhere.md"]
    assert dead_links(here, "[a](glossary.md#nothing)") == ["glossary.md#nothing"]
    assert dead_links(here, "[a](glossary.md#glossary) [b](https://example.org) ![c](nowhere.png)") == []
    assert dead_paths("`medforged/nowhere.py`") == ["medforged/nowhere.py"]
    assert dead_paths("`medforged/config.py`, `./ops/up --simulate`, `medforged/adapters/<x>.py`") == []
    assert unknown_commands("`medforgectl explode`") == ["medforgectl explode"]
    assert unknown_commands("```sh\nsudo medforgectl sessions explode --all\n```") == ["medforgectl sessions explode"]
    assert unknown_commands("`medforgectl sessions ls --all`, medforgectl is, `medforgectl --version`") == []


def dead_links(document: PurePosixPath, text: str) -> list[str]:
    """Links inside the tree whose file or heading does not exist."""
    dead = []
    for link in links(text):
        target, _, fragment = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (ROOT / document.parent / unquote(target)).resolve() if target else ROOT / document
        known = path.exists() and path.is_relative_to(ROOT)
        if not known or (fragment and fragment not in anchors(path.read_text(encoding="utf-8"))):
            dead.append(link)
    return dead


def dead_paths(text: str) -> list[str]:
    """Paths of the tree in backticks that do not exist. What has a placeholder in it names no file."""
    words = [word.strip(",;:()") for span in spans(text) for word in span.split()]
    found = [match[1] for word in words if (match := PATH.fullmatch(word))]
    return [path for path in found if not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists()]


def unknown_commands(text: str) -> list[str]:
    """Calls of medforgectl whose words lead to no command."""
    return [
        " ".join(["medforgectl", *path])
        for words in medforgectl_calls(text)
        if (path := _path(words)) and path not in set(commands(medforgectl))
    ]


def _path(words: list[str]) -> tuple[str, ...]:
    """The words of a call that name a command: up to the first option, and no arguments."""
    command, path = medforgectl, []
    for word in words:
        if word == "--socket" or word.startswith("/"):
            continue
        if word.startswith("-") or not isinstance(command, click.Group):
            break
        path.append(word)
        command = command.commands.get(word, command)
    return tuple(path)


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


def table_rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables by their first cell, which is left out."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
