"""Cursors that nobody has to understand."""

from __future__ import annotations

import base64

import pytest

from facade.problems import Problem
from facade.schemas.paging import cursor_text, read_cursor
from tests.fakes.daemon import make_session

pytestmark = pytest.mark.unit


def test_cursor_round_trip() -> None:
    session = make_session()
    text = cursor_text(session.created_at, session.id)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    cursor = read_cursor(text)
    assert cursor is not None
    assert (cursor.created_at, cursor.id) == (session.created_at, session.id)


def packed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "!!!!",
        "ü",
        "a" * 300,
        packed("null"),
        packed("{}"),
        packed("[]"),
        packed('["2026-01-01T00:00:00Z"]'),
        packed('["2026-01-01T00:00:00","00000000-0000-0000-0000-000000000000"]'),
        packed('["2026-01-01T00:00:00Z","00000000-0000-0000-0000-00000000000"]'),
        packed('["2026-01-01T00:00:00Z","00000000-0000-0000-0000-000000000000",1]'),
        packed("[" * 100),
    ],
)
def test_a_foreign_cursor_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        read_cursor(text)
    assert (caught.value.status, caught.value.type, caught.value.code) == (
        400,
        "pagination/invalid-cursor",
        "invalid_cursor",
    )


def test_none_is_none() -> None:
    assert read_cursor(None) is None
