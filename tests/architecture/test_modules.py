"""What every module keeps to: a docstring that says what it owns, a true `__all__`, a bounded length, no shell."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import PurePosixPath

import pytest

from tests.architecture.tree import PRODUCT, Module, modules, read, tracked

pytestmark = pytest.mark.unit

LONGEST = 500
DEFINITION = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
SOURCES = {".py", ".sh", ".ts", ".tsx", ".js", ".cjs", ".mjs"}


def silent(module: Module) -> str | None:
    """A module that does not say what it is."""
    if not ast.get_docstring(module.tree) and module.source.strip():
        return "has no docstring"
    return None


def owns_nothing(module: Module) -> str | None:
    """A module of the product that does not say what it owns; packages and migrations describe themselves freely."""
    first = (ast.get_docstring(module.tree) or "").partition("\n")[0]
    if module.package or module.migration or (first.startswith("Owns ") and len(first) > len("Owns ") + 15):
        return None
    return "has a docstring that does not begin with what it owns"


def untrue_all(module: Module) -> str | None:
    """`__all__` names what is there, and every public class and function is named."""
    if module.migration:
        return None
    bound = {name for node in module.tree.body for name in _bound(node)}
    public = {node.name for node in module.tree.body if isinstance(node, DEFINITION) and not node.name.startswith("_")}
    told = _told(module.tree)
    if told is None:
        return f"has no __all__ although it has {', '.join(sorted(public))}" if public else None
    if absent := told - bound:
        return f"names {', '.join(sorted(absent))} in __all__, which it has not"
    if hidden := public - told:
        return f"does not name {', '.join(sorted(hidden))} in __all__"
    return None


def _told(tree: ast.Module) -> set[str] | None:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return set(ast.literal_eval(value))
    return None


def _bound(node: ast.stmt) -> set[str]:
    match node:
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {alias.asname or alias.name.partition(".")[0] for alias in names}
        case _:
            return {node.name} if isinstance(node, DEFINITION) else set()


def shell(module: Module) -> str | None:
    """Anything that hands a line to a shell."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        for keyword in node.keywords:
            if keyword.arg == "shell" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                return f"gives `shell` in line {node.lineno}"
        name = ast.unparse(node.func)
        if name in {"os.system", "os.popen"} or name.endswith("create_subprocess_shell"):
            return f"calls {name} in line {node.lineno}"
    return None


def too_long(path: PurePosixPath, text: str) -> str | None:
    lines = text.count("\n")
    return f"{path}: has {lines} lines" if lines > LONGEST else None


def complaints(check: Callable[[Module], str | None], *tops: str) -> list[str]:
    return [f"{module.path}: {complaint}" for module in modules(*tops) if (complaint := check(module))]


def test_every_module_says_what_it_is() -> None:
    assert complaints(silent, *PRODUCT, "ops", "tests") == []


def test_every_module_of_the_product_says_what_it_owns() -> None:
    assert complaints(owns_nothing, *PRODUCT) == []


def test_all_is_true() -> None:
    assert complaints(untrue_all, *PRODUCT) == []


def test_nothing_goes_through_a_shell() -> None:
    assert complaints(shell, *PRODUCT, "ops", "tests") == []


def test_no_module_is_too_long() -> None:
    sources = [path for path in tracked() if path.suffix in SOURCES]
    assert [complaint for path in sources if (complaint := too_long(path, read(path)))] == []


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (silent, "x = 1"),
        (owns_nothing, '"""Helpers."""'),
        (owns_nothing, '"""Owns things."""'),
        (untrue_all, "def f(): ..."),
        (untrue_all, "__all__ = ['f', 'g']\ndef f(): ..."),
        (untrue_all, "__all__ = ['f']\ndef f(): ...\nclass G: ..."),
        (shell, "subprocess.run('ls', shell=True)"),
        (shell, "run('ls', shell=SHELL)"),
        (shell, "import os\nos.system('ls')"),
        (shell, "async def f():\n    await asyncio.create_subprocess_shell('ls')"),
    ],
)
def test_what_is_wrong_is_seen(check: Callable[[Module], str | None], source: str) -> None:
    assert check(Module(PurePosixPath("medforged/example.py"), source))


def test_what_is_too_long_is_seen() -> None:
    assert too_long(PurePosixPath("a.py"), "\n" * (LONGEST + 1))
    assert not too_long(PurePosixPath("a.py"), "\n" * LONGEST)
