"""Owns making text of others safe to show: tenants and drivers wrote it, and a terminal obeys what it reads.

Control characters (escape sequences begin with one) and the invisible characters that reorder or hide text are shown
as escapes, so that nothing a tenant prints can move the cursor, set a title, or make a line read as another.
"""

from __future__ import annotations

import unicodedata

__all__ = ["json_safe", "one_line", "readable"]

# Unicode's general categories: controls, format characters (directional overrides), line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def readable(text: str, keep: str = "") -> str:
    r"""The text with every unsafe character shown as an escape, except those in `keep`.

    >>> readable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(char) if _unsafe(char) and char not in keep else char for char in text)


def one_line(text: str) -> str:
    r"""The text on one line: white space joined, unsafe characters shown.

    >>> one_line("two\n  lines\x07")
    'two lines\\x07'
    """
    return readable(" ".join(text.split()))


def json_safe(document: str) -> str:
    r"""A JSON document with its unsafe characters as JSON escapes: the same document to every parser.

    >>> json_safe('"\u009b2J"')
    '"\\u009b2J"'
    """
    if document.isascii():
        return document  # JSON itself escapes the ASCII controls, except DEL, which no terminal acts upon
    return "".join(_json_escape(char) if not char.isascii() and _unsafe(char) else char for char in document)


def _unsafe(char: str) -> bool:
    return unicodedata.category(char) in _UNSAFE


def _shown(char: str) -> str:
    return char.encode("ascii", "backslashreplace").decode() if ord(char) > 0x7F else f"\\x{ord(char):02x}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
