"""What a Markdown document says about other things: links, anchors, paths and commands."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ops.reference.markdown import anchor

_FENCE = re.compile(r"^```(\w*)")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*$")
_SPAN = re.compile(r"`([^`]+)`")
_COMMAND = re.compile(r"\bmedforgectl((?: +(?:-{1,2}[\w-]+(?:[ =]/\S+)?|[a-z][\w-]*))*)")


def prose(text: str) -> Iterator[str]:
    """The lines that are not in a fence."""
    fenced = False
    for line in text.splitlines():
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield line


def links(text: str) -> list[str]:
    return [target for line in prose(text) for target in _LINK.findall(_SPAN.sub("x", line))]


def anchors(text: str) -> set[str]:
    """The fragments of a document's headings; a heading that comes again gets a number, as on common sites."""
    found: set[str] = set()
    for line in prose(text):
        if heading := _HEADING.match(line):
            name, number = anchor(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])), 0
            while (fragment := f"{name}-{number}" if number else name) in found:
                number += 1
            found.add(fragment)
    return found


def spans(text: str) -> list[str]:
    """What stands between backticks in one line."""
    return [span for line in prose(text) for span in _SPAN.findall(line)]


def medforgectl_calls(text: str) -> list[list[str]]:
    """The words after each `medforgectl` that looks like a call: in backticks, or in a fence with shell commands."""
    found: list[list[str]] = []
    language: str | None = None
    for line in text.splitlines():
        if fence := _FENCE.match(line):
            language = fence[1] if language is None else None
            continue
        pieces = _SPAN.findall(line) if language is None else [line] if language == "sh" else []
        found += [call.split() for piece in pieces for call in _COMMAND.findall(piece)]
    return found
