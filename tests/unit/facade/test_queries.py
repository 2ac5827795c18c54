"""Queries become the type that an endpoint names; what does not fit is refused under its name."""

from __future__ import annotations

from urllib.parse import quote
from uuid import UUID

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from facade.problems import Problem
from facade.schemas.paging import Paging
from facade.schemas.queries import read_query
from facade.schemas.sessions import SessionQuery
from medforged.contract.sessions import SessionStatus

pytestmark = pytest.mark.unit


class Filters(Paging, frozen=True, kw_only=True):
    """One of each kind that listings have."""

    email: str | None = None
    is_admin: bool | None = None
    user_id: UUID | None = None
    count: int | None = None
    must: str = ""


def asked(query: str) -> web.Request:
    return make_mocked_request("GET", f"/?{query}")


def refused(query: str, type_: type[msgspec.Struct]) -> Problem:
    with pytest.raises(Problem) as caught:
        read_query(asked(query), type_)
    return caught.value


def test_what_is_left_out_has_its_default() -> None:
    assert read_query(asked(""), SessionQuery) == SessionQuery(limit=50, cursor=None, status=[])


@pytest.mark.parametrize(("query", "limit"), [("", 50), ("limit=1", 1), ("limit=500", 500)])
def test_limit(query: str, limit: int) -> None:
    assert read_query(asked(query), Paging).limit == limit


@pytest.mark.parametrize(
    "text",
    ["", "0", "501", "-1", "+1", "1.0", "1e2", "ten", "²", "٣", "9" * 5000, "1_0", " 1", "042", "null", "1&limit=1"],
)
def test_limit_refused(text: str) -> None:
    problem = refused(f"limit={text if '&' in text else quote(text)}", Paging)
    assert (problem.status, problem.type, problem.code) == (400, "pagination/invalid-limit", "invalid_limit")


def test_a_cursor_given_twice_is_refused() -> None:
    assert refused("cursor=a&cursor=b", Paging).type == "pagination/invalid-cursor"


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
def test_lists(query: str, statuses: list[SessionStatus]) -> None:
    assert read_query(asked(query), SessionQuery).status == statuses


@pytest.mark.parametrize("text", ["RUNNING", "alive", "running stopped"])
def test_lists_refused(text: str) -> None:
    problem = refused(f"status={quote(text)}", SessionQuery)
    assert (problem.status, problem.type) == (422, "validation/request")
    assert problem.errors[0].loc == ["query", "status"]


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("email=a%40b", "email", "a@b"),
        ("email=null", "email", "null"),
        ("email=007", "email", "007"),
        ("email=", "email", ""),
        ("is_admin=true", "is_admin", True),
        ("is_admin=false", "is_admin", False),
        ("user_id=00000000-0000-0000-0000-000000000001", "user_id", UUID(int=1)),
        ("count=7", "count", 7),
    ],
)
def test_scalars(query: str, field: str, value: object) -> None:
    assert getattr(read_query(asked(query), Filters), field) == value


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("is_admin=yes", "is_admin"),
        ("is_admin=null", "is_admin"),
        ("is_admin=", "is_admin"),
        ("user_id=1", "user_id"),
        ("user_id=null", "user_id"),
        ("count=1e2", "count"),
        ("email=a&email=b", "email"),
        ("limits=5", "limits"),
        ("LIMIT=5", "LIMIT"),
        ("=5", ""),
    ],
)
def test_scalars_refused(query: str, name: str) -> None:
    problem = refused(query, Filters)
    assert (problem.status, problem.code) == (422, "request_validation_failed")
    assert problem.errors[0].loc == ["query", name]


def test_every_unknown_name_is_told() -> None:
    told = refused("a=1&b=2&a=3", SessionQuery).errors
    assert [(error.loc, error.type) for error in told] == [
        (["query", "a"], "extra_forbidden"),
        (["query", "b"], "extra_forbidden"),
    ]
