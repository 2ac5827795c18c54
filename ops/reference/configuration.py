"""Owns docs/reference/configuration.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import msgspec
import msgspec.inspect as mi

import facade.config
import medforged.config
from ops.reference.describe import describe
from ops.reference.markdown import code, document, table
from ops.reference.source import attribute_docs, class_doc

_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def page() -> str:
    """The page, whole."""
    return document(
        "# Configuration",
        "Daemon and facade each read one TOML file when they start, and never again. An unknown key is an error that "
        "names the file and line, so that a misspelt key is not a setting that somebody believes in. "
        "`medforged --check` and `medforge-facade --check` read the configuration and end.",
        "The environment comes before the file, the file before the default. `<PREFIX><SECTION>__<KEY>` sets "
        "`section.key`, lists separated by commas; some keys have a second name of their own.",
        *_program("medforged", medforged.config),
        *_program("medforge-facade", facade.config),
    )


def _program(name: str, module: ModuleType) -> Iterator[str]:
    path: Path = module.DEFAULT_PATH
    names = {setting: variable for variable, setting in module.ALIASES.items()}
    yield f"## {name}"
    yield f"File: `{path}`. Prefix of variables: `{module.PREFIX}`."
    for section in _fields(module.Settings):
        assert isinstance(section.type, mi.StructType)
        yield f"### [{section.name}]"
        yield class_doc(section.type.cls)
        yield table(["key", "takes", "default", "meaning"], _keys(section.name, section.type, names))


def _keys(section: str, kind: mi.StructType, names: Mapping[str, str]) -> Iterator[list[str]]:
    docs = attribute_docs(kind.cls)
    for field in kind.fields:
        meaning = docs.get(field.name, "")
        if variable := names.get(f"{section}.{field.name}"):
            meaning = f"{meaning} Also `{variable}` in the environment.".strip()
        yield [code(field.name), describe(field.type, _table_of), _default(field), meaning]


def _table_of(cls: type) -> str:
    keys = ", ".join(f"{code(field.name)} ({describe(field.type, _table_of)})" for field in _fields(cls))
    return f"table with {keys}"


def _fields(cls: type) -> tuple[mi.Field, ...]:
    info = mi.type_info(cls)
    assert isinstance(info, mi.StructType)
    return info.fields


def _default(field: mi.Field) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value in ("", [], ()):
        return "empty"
    text = code(msgspec.json.encode(value).decode().strip('"'))
    if field.name.endswith("_bytes"):
        for unit, size in _UNITS:
            if isinstance(value, int) and value >= size and value % size == 0:
                return f"{text} ({value // size} {unit})"
    return text
