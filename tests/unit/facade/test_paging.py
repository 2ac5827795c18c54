"""Limits, filters, and cursors that nobody has to understand."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from facade.problems import Problem
from facade.sessions.paging import cursor_after, read_cursor, read_limit, read_statuses
from medforged.contract.sessions import SessionStatus
from tests.fakes.daemon import make_session

pytestmark = pytest.mark.unit


def asked(query: str) -> web.Request:
    return make_mocked_request("GET", f"/?{query}")


def test_cursor_round_trip() -> None:
    session = make_session()
    text = cursor_after(session)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    cursor = read_cursor(asked(f"cursor={text}"))
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
        read_cursor(asked(f"cursor={quote(text)}"))
    assert (caught.value.status, caught.value.type, caught.value.code) == (
        400,
        "pagination/invalid-cursor",
        "invalid_cursor",
    )


@pytest.mark.parametrize(("query", "limit"), [("", 50), ("limit=1", 1), ("limit=500", 500), ("limit=0042", 42)])
def test_limit(query: str, limit: int) -> None:
    assert read_limit(asked(query)) == limit


@pytest.mark.parametrize("text", ["", "0", "501", "-1", "+1", "1.0", "1e2", "ten", "²", "٣", "9" * 5000, "1_0"])
def test_limit_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        read_limit(asked(f"limit={quote(text)}"))
    assert (caught.value.status, caught.value.type, caught.value.code) == (
        400,
        "pagination/invalid-limit",
        "invalid_limit",
    )


@pytest.mark.parametrize(
    ("query", "statuses"),
    [
        ("", []),
        ("status=", []),
        ("status=running", [SessionStatus.RUNNING]),
        ("status=running&status=error", [SessionStatus.RUNNING, SessionStatus.ERROR]),
        ("status=running,error,running", [SessionStatus.RUNNING, SessionStatus.ERROR]),
    ],
)
def test_statuses(query: str, statuses: list[SessionStatus]) -> None:
    assert read_statuses(asked(query)) == statuses


@pytest.mark.parametrize("text", ["RUNNING", "alive", "running stopped"])
def test_statuses_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        read_statuses(asked(f"status={quote(text)}"))
    assert caught.value.status == 422
    assert caught.value.errors[0].loc == ["query", "status"]
