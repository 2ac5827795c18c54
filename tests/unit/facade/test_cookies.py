"""Reading every cookie of our name that a request carries, and the exact attributes of those that are set."""

from __future__ import annotations

import re

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from facade.auth.cookies import Cookies, plain_token
from facade.auth.tokens import TOKEN_PATTERN, new_token

pytestmark = pytest.mark.unit

A, B = "a" * 43, "b" * 43
COOKIES = Cookies(".medforge.localhost", secure=True, max_age_seconds=60)


def tokens(*headers: str) -> tuple[str, ...]:
    request = make_mocked_request("GET", "/", CIMultiDict([("Cookie", header) for header in headers]))
    return COOKIES.tokens(request)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], ()),
        ([""], ()),
        ([f"medforge_session={A}"], (A,)),
        ([f"x=1; medforge_session={A}; y=2"], (A,)),
        ([f"x=1;medforge_session={A};y=2"], (A,)),
        ([f"medforge_session={A}; medforge_session={B}"], (A, B)),
        ([f"medforge_session={A}; medforge_session={A}"], (A,)),
        ([f"medforge_session={B}", f"medforge_session={A}"], (B, A)),
        ([f"medforge_session=short; medforge_session={A}"], (A,)),
        ([f"medforge_session={A}x"], ()),
        ([f"medforge_session={A[:-1]}"], ()),
        ([f"xmedforge_session={A}"], ()),
        ([f"x=medforge_session={A}"], ()),
        ([f"Medforge_Session={A}"], ()),
        ([f'medforge_session="{A}"'], ()),
        ([f"medforge_session={A[:-1]}%"], ()),
    ],
)
def test_tokens(headers: list[str], found: tuple[str, ...]) -> None:
    assert tokens(*headers) == found


def plain(*headers: str) -> str | None:
    return plain_token(CIMultiDictProxy(CIMultiDict([("Cookie", header) for header in headers])))


@pytest.mark.parametrize(
    "header", [f"medforge_session={A}", f"x=1; medforge_session={A}; y=2", f"x=1; y=; medforge_session={A}"]
)
def test_the_token_of_a_browser_with_one_is_plain(header: str) -> None:
    assert plain(header) == A


_PIECES = ["medforge_session=", A, B, A[:-1], "=", ";", "; ", ", ", " ", "\t", "x", "é", '"', "medforge_session"]


@given(st.lists(st.lists(st.sampled_from(_PIECES), max_size=7).map("".join), max_size=3))
def test_a_plain_token_is_the_only_one_or_nobodys(headers: list[str]) -> None:
    token = plain(*headers)
    if token is not None and re.fullmatch(TOKEN_PATTERN, token):
        assert tokens(*headers) == (token,)


def test_more_tokens_than_a_header_holds_are_none() -> None:
    assert tokens(*(f"medforge_session={number:043d}" for number in range(1300))) == ()


def test_a_new_token_is_long_unlike_others_and_readable() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    for token in made:
        assert tokens(f"medforge_session={token}") == (token,)


def test_set() -> None:
    response = web.Response()
    COOKIES.set(response, A)
    (morsel,) = response.cookies.values()
    assert morsel.OutputString() == (
        f"medforge_session={A}; Domain=.medforge.localhost; HttpOnly; Max-Age=60; Path=/; SameSite=Lax; Secure"
    )


def test_clear_names_the_same_cookie() -> None:
    response = web.Response()
    COOKIES.clear(response)
    (morsel,) = response.cookies.values()
    assert morsel.OutputString() == (
        'medforge_session=""; Domain=.medforge.localhost; HttpOnly; Max-Age=0; Path=/; SameSite=Lax; Secure'
    )


def test_insecure_only_when_asked() -> None:
    response = web.Response()
    Cookies(".medforge.localhost", secure=False, max_age_seconds=60).set(response, A)
    assert "Secure" not in response.cookies["medforge_session"].OutputString()
