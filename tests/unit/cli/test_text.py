"""What tenants and drivers write is shown, never obeyed, and what is harmless stays as it is."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.text import json_safe, one_line, readable

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüße, 世界 🚀", "Grüße, 世界 🚀"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),  # a C1 control that some terminals take for ESC [
        ("one\rtwo", r"one\x0dtwo"),
        ("user\u202etxt.exe", r"user\u202etxt.exe"),
        ("a\u2028b", r"a\u2028b"),
        ("\x7f", r"\x7f"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_readable(text: str, shown: str) -> None:
    assert readable(text) == shown


def test_readable_keeps_what_it_is_told_to() -> None:
    assert readable("a\tb\nc\x1b", keep="\n\t") == "a\tb\nc\\x1b"


@given(st.text())
def test_nothing_unsafe_is_left(text: str) -> None:
    left = {unicodedata.category(char) for char in readable(text)}
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_one_line() -> None:
    assert one_line(" cannot X:\n\treason \x1b[0m ") == r"cannot X: reason \x1b[0m"


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_safe_is_the_same_document_without_unsafe_characters(document: object) -> None:
    safe = json_safe(json.dumps(document, ensure_ascii=False))
    assert json.loads(safe) == document
    assert not any(unicodedata.category(char) in {"Cf", "Cs", "Zl", "Zp"} for char in safe)
    assert not any(0x80 <= ord(char) < 0xA0 for char in safe)
