"""Owns reading a settings type from a TOML file and the environment, and saying exactly what is wrong with them.

A leaf module that daemon and facade share. A settings type is a frozen msgspec.Struct whose fields are sections,
each again a Struct of scalar or list values with defaults. Precedence: environment, file, default. Unknown keys are
fatal, because a misspelt key that is silently ignored is a setting that the operator believes in.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

__all__ = ["ConfigurationError", "load"]

T = TypeVar("T", bound=msgspec.Struct)

_PATH = re.compile(r"\$\.?(?P<path>[\w.\[\]-]+)")


class ConfigurationError(Exception):
    """The configuration cannot be used. The message names the file and line, or the variable, and the remedy."""


def load(
    path: Path | None, type_: type[T], environ: Mapping[str, str], prefix: str, aliases: Mapping[str, str] | None = None
) -> T:
    """Settings of `type_` from a file (None: defaults alone), overridden by variables of the environment.

    `<prefix><SECTION>__<KEY>` sets `section.key`; so does an alias, a variable's name mapped to `section.key`.
    Raises ConfigurationError.
    """
    text, values = _read(path)
    sections = _sections(type_)
    _reject_unknown(path, text, values, sections)
    origin: dict[str, str] = {}
    for section, key, raw, variable in _overrides(environ, prefix, aliases or {}, sections):
        values.setdefault(section, {})[key] = _literal(raw, sections[section][key])
        origin[f"{section}.{key}"] = variable
    try:
        return msgspec.convert(values, type_, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_explain(str(error), path, text, origin)) from error


def _read(path: Path | None) -> tuple[str, dict[str, Any]]:
    if path is None:
        return "", {}
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the configuration {path}: {error.strerror}; create it or name another with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"cannot read the configuration {path}: it is not UTF-8 text; save it as UTF-8"
        ) from error
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error}; correct the TOML there") from error


def _sections(type_: type[msgspec.Struct]) -> dict[str, dict[str, Any]]:
    """Section -> key -> annotated type."""
    return {
        section: get_type_hints(annotation, include_extras=True)
        for section, annotation in get_type_hints(type_, include_extras=True).items()
    }


def _reject_unknown(
    path: Path | None, text: str, values: Mapping[str, Any], sections: Mapping[str, dict[str, Any]]
) -> None:
    for section, keys in values.items():
        if section not in sections:
            line = _line(text, section, None)
            known = ", ".join(sorted(sections))
            raise ConfigurationError(f"{path}:{line}: unknown section [{section}]; the sections are {known}")
        if not isinstance(keys, dict):
            raise ConfigurationError(f"{path}:{_line(text, section, None)}: {section} is a section; write [{section}]")
        for key in keys:
            if key not in sections[section]:
                known = ", ".join(sorted(sections[section]))
                line = _line(text, section, key)
                raise ConfigurationError(
                    f"{path}:{line}: unknown key {section}.{key}; the keys of [{section}] are {known}"
                )


def _overrides(
    environ: Mapping[str, str], prefix: str, aliases: Mapping[str, str], sections: Mapping[str, dict[str, Any]]
) -> list[tuple[str, str, str, str]]:
    found = []
    for variable, raw in sorted(environ.items()):
        if variable in aliases:
            section, _, key = aliases[variable].partition(".")
        elif variable.startswith(prefix):
            section, _, key = variable.removeprefix(prefix).lower().partition("__")
            if key not in sections.get(section, {}):
                raise ConfigurationError(
                    f"unknown environment variable {variable}: there is no setting {section}.{key or '?'}; "
                    f"unset it or write {prefix}<SECTION>__<KEY>"
                )
        else:
            continue
        found.append((section, key, raw, variable))
    return found


def _literal(raw: str, annotation: Any) -> Any:
    """A variable's text as the value that the TOML would have given; lists are separated by commas."""
    if _is_list(annotation):
        return [part.strip() for part in raw.split(",") if part.strip()]
    return raw


def _is_list(annotation: Any) -> bool:
    origin = getattr(annotation, "__origin__", None)
    return origin in (list, tuple) or any(_is_list(part) for part in get_args(annotation) if origin is not list)


def _explain(message: str, path: Path | None, text: str, origin: Mapping[str, str]) -> str:
    found = _PATH.search(message)
    where = found.group("path") if found else ""
    what = message.split(" - at ", maxsplit=1)[0]
    section, _, key = where.partition(".")
    key = re.sub(r"\[.*", "", key)
    if variable := origin.get(f"{section}.{key}"):
        return f"environment variable {variable}: {section}.{key}: {what}; correct or unset it"
    line = _line(text, section, key or None)
    return f"{path}:{line}: {where}: {what}; see docs/reference/configuration.md"


def _line(text: str, section: str, key: str | None) -> int:
    """Where a section's header or key stands in the file; 1 when it is written in a way this does not see."""
    name = re.escape(section)
    header = re.compile(rf"\s*\[+\s*\"?{name}\"?\s*\]|\s*\"?{name}\"?\s*[.=]")
    dotted = re.compile(rf"\s*\"?{name}\"?\s*\.\s*\"?{re.escape(key or '')}\"?\s*=")
    plain = re.compile(rf"\s*\"?{re.escape(key or '')}\"?\s*[.=]")
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(r"\s*\[", line):
            inside = bool(header.match(line))
        if key is None and header.match(line):
            return number
        if key is not None and (dotted.match(line) or (inside and plain.match(line))):
            return number
    return 1
