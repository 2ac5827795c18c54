"""Owns reading what stands in the source and is gone at run time: the string below a class's attribute."""

from __future__ import annotations

import ast
import inspect
import textwrap


def attribute_docs(owner: type) -> dict[str, str]:
    """Attribute name -> the text of the string literal right below it."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        match statement, following:
            case (
                (ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name))),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found


def class_doc(owner: type) -> str:
    """A class's own docstring as one paragraph; empty where it has none (msgspec would inherit its base's)."""
    return inspect.cleandoc(owner.__dict__.get("__doc__") or "")
