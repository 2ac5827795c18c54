"""Which texts are e-mail addresses, and the one spelling under which they are kept."""

from __future__ import annotations

import pytest

from facade.auth.emails import InvalidEmail, normalize

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a@example.org", "a@example.org"),
        ("  Ada.Lovelace@Example.ORG\n", "ada.lovelace@example.org"),
        ("o'hara+tag@sub.example.co.uk", "o'hara+tag@sub.example.co.uk"),
        ("x@medforge.localhost", "x@medforge.localhost"),
        ("e\u0301@example.org", "\u00e9@example.org"),  # e and a combining accent
        ("E\u0301@example.org", "\u00e9@example.org"),
        ("用户@例え.jp", "用户@例え.jp"),
        ("a@1.2.example", "a@1.2.example"),
    ],
)
def test_accepted(text: str, kept: str) -> None:
    assert normalize(text) == kept
    assert normalize(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "a",
        "@",
        "a@",
        "@example.org",
        "a@example",
        "a@@example.org",
        "a@b@example.org",
        "a b@example.org",
        ".a@example.org",
        "a.@example.org",
        "a..b@example.org",
        "a@example..org",
        "a@.example.org",
        "a@example.org.",
        "a@-example.org",
        "a@example-.org",
        "a@exa_mple.org",
        "a@[127.0.0.1]",
        '"a b"@example.org',
        "a\x00@example.org",
        "a\u200b@example.org",
        "a\u202e@example.org",
        "a\ud800@example.org",
        "a@exam\nple.org",
        "x" * 65 + "@example.org",
        "a@" + "x" * 64 + ".org",
        "a@" + ".".join(["x" * 60] * 5),
        "<a@example.org>",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidEmail):
        normalize(text)
