"""Device cookies: whom they recognize, and that nobody can make, move or keep one that should not count."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from facade.auth.devices import Devices
from facade.store.users import User
from tests.fakes.clock import SetClock

pytestmark = pytest.mark.unit

TTL = timedelta(days=180)
ADA = User(UUID(int=1), "ada@example.org", "ada's hash", False, 1, datetime(2026, 1, 1, tzinfo=UTC))
BOB = replace(ADA, id=UUID(int=2), email="bob@example.org", password_hash="bob's hash")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def devices(clock: SetClock) -> Devices:
    return Devices(b"k" * 32, clock, secure=True, ttl=TTL)


def request(*cookies: str) -> web.Request:
    return make_mocked_request("POST", "/", headers=[("Cookie", cookie) for cookie in cookies])


def remembered(devices: Devices, user: User, *cookies: str) -> str:
    """The cookie, as the browser sends it back."""
    response = web.Response()
    devices.remember(request(*cookies), response, user)
    return f"{devices.cookie_name}={response.cookies[devices.cookie_name].value}"


def test_a_browser_is_recognized_at_the_account_it_has_signed_in_to(devices: Devices) -> None:
    cookie = remembered(devices, ADA)
    device = devices.recognize(request(f"a=1; {cookie}; b=2"), ADA.email)
    assert device is not None
    assert devices.is_current(device, ADA)
    assert devices.recognize(request(cookie), BOB.email) is None
    assert devices.recognize(request(), ADA.email) is None


def test_the_cookie_is_for_the_very_host_and_for_no_script(devices: Devices) -> None:
    response = web.Response()
    devices.remember(request(), response, ADA)
    cookie = response.cookies["__Host-medforge_device"]
    assert cookie.output(header="").strip() == (
        f"__Host-medforge_device={cookie.value}; HttpOnly; Max-Age={180 * 24 * 3600}; Path=/; SameSite=Strict; Secure"
    )


def test_without_tls_it_has_a_name_that_browsers_take(clock: SetClock) -> None:
    trial = Devices(b"k" * 32, clock, secure=False, ttl=TTL)
    cookie = remembered(trial, ADA)
    assert cookie.startswith("medforge_device=")
    assert trial.recognize(request(cookie), ADA.email) is not None


def test_another_password_ends_it_and_so_does_another_account_of_the_same_address(devices: Devices) -> None:
    device = devices.recognize(request(remembered(devices, ADA)), ADA.email)
    assert device is not None
    assert devices.is_current(device, replace(ADA, password_hash="the same, made anew with other costs"))
    assert not devices.is_current(device, replace(ADA, password_revision=1))
    assert not devices.is_current(device, replace(ADA, id=BOB.id))


def test_it_ends_with_time(devices: Devices, clock: SetClock) -> None:
    cookie = remembered(devices, ADA)
    clock.advance(days=180, seconds=-1)
    assert devices.recognize(request(cookie), ADA.email) is not None
    clock.advance(seconds=1)
    assert devices.recognize(request(cookie), ADA.email) is None


def test_every_bit_of_it_counts(devices: Devices) -> None:
    name, _, token = remembered(devices, ADA).partition("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place, character in enumerate(token):
        for bit in range(6):
            other = token[:place] + alphabet[alphabet.index(character) ^ (1 << bit)] + token[place + 1 :]
            assert devices.recognize(request(f"{name}={other}"), ADA.email) is None


def test_another_key_makes_others(devices: Devices, clock: SetClock) -> None:
    other = Devices(b"K" * 32, clock, secure=True, ttl=TTL)
    assert devices.recognize(request(remembered(other, ADA)), ADA.email) is None


@pytest.mark.parametrize("value", ["", ".", "....", "x" * 64, "x" * 63, "=" * 64, "x" * 4000, "." + "x" * 64])
def test_nonsense_is_nobody(devices: Devices, value: str) -> None:
    assert devices.recognize(request(f"{devices.cookie_name}={value}"), ADA.email) is None


def test_a_shared_browser_is_known_to_its_last_accounts(devices: Devices) -> None:
    people = [replace(ADA, email=f"person{number}@example.org") for number in range(6)]
    cookie = ""
    for person in people:
        cookie = remembered(devices, person, cookie)
    known = [devices.recognize(request(cookie), person.email) is not None for person in people]
    assert known == [False, False, True, True, True, True]
    assert len(cookie) < 300


def test_signing_in_again_keeps_the_device_and_a_new_password_makes_another(devices: Devices) -> None:
    cookie = remembered(devices, ADA)
    first = devices.recognize(request(cookie), ADA.email)
    again = devices.recognize(request(remembered(devices, ADA, cookie)), ADA.email)
    changed = replace(ADA, password_revision=1)
    after = devices.recognize(request(remembered(devices, changed, cookie)), ADA.email)
    assert first is not None
    assert again is not None
    assert after is not None
    assert first.id == again.id != after.id


def test_cookies_that_another_page_has_tossed_in_front_hide_nothing(devices: Devices) -> None:
    """Browsers that take a cookie without a name let a page of a sibling host send this one too."""
    cookie = remembered(devices, ADA)
    tokens = iter(f"{number:064}" for number in range(1200))
    tossed = [f"{devices.cookie_name}={'.'.join(next(tokens) for _ in range(60))}" for _ in range(20)]
    assert devices.recognize(request("; ".join([*tossed, cookie])), ADA.email) is not None


def test_it_says_nothing_about_the_account(devices: Devices) -> None:
    # Long enough that chance does not write it into a random token.
    user = replace(ADA, email="countess.of.lovelace@example.org")
    cookie = remembered(devices, user)
    written = urlsafe_b64decode(re.sub("[^A-Za-z0-9_-]", "", cookie.partition("=")[2]) + "==")
    for told in (cookie.encode(), written):
        assert b"lovelace" not in told.lower()
        assert user.id.bytes not in told
        assert user.id.hex.encode() not in told
