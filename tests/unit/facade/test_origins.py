"""Which requests a page of another origin has sent."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from facade.auth.origins import OriginGuard
from facade.hosts import Hosts
from facade.problems import Problem

pytestmark = pytest.mark.unit

GUARD = OriginGuard(Hosts("example.test", 443).origins | {"http://localhost:5173"})


def check(*headers: tuple[str, str]) -> None:
    GUARD.check(make_mocked_request("POST", "/", CIMultiDict(headers)))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Origin", "https://medforge.example.test")],
        [("Origin", "https://api.medforge.example.test")],
        [("Origin", "http://localhost:5173")],
        [("Origin", "https://medforge.example.test"), ("Sec-Fetch-Site", "same-site")],
        [("Sec-Fetch-Site", "same-origin")],
        [("Sec-Fetch-Site", "none")],
    ],
)
def test_allowed(headers: list[tuple[str, str]]) -> None:
    check(*headers)


@pytest.mark.parametrize(
    "headers",
    [
        [("Origin", "null")],
        [("Origin", "")],
        [("Origin", "https://s-abcd2345.medforge.example.test")],
        [("Origin", "https://evil.test")],
        [("Origin", "http://medforge.example.test")],
        [("Origin", "https://medforge.example.test:443")],
        [("Origin", "https://medforge.example.test:8443")],
        [("Origin", "https://medforge.example.test/")],
        [("Origin", "https://medforge.example.test.evil.test")],
        [("Origin", "https://medforge.example.test@evil.test")],
        [("Origin", "https://evilmedforge.example.test")],
        [("Origin", "HTTPS://MEDFORGE.EXAMPLE.TEST")],
        [("Origin", "https://medforge.example.test, https://evil.test")],
        [("Origin", "https://medforge.example.test"), ("Origin", "https://evil.test")],
        [("Origin", "https://medforge.example.test"), ("Origin", "https://medforge.example.test")],
        [("Sec-Fetch-Site", "same-site")],
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "")],
        [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
    ],
)
def test_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Problem) as caught:
        check(*headers)
    assert (caught.value.status, caught.value.detail, caught.value.type) == (
        403,
        "Request origin is not allowed.",
        "http/403",
    )
