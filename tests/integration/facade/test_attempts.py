"""Limits as clients meet them: who is charged for what, who is never locked out, and when it works again."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from facade.config import Limits, Settings
from facade.limits.rules import Rule
from facade.limits.table import SharedTable
from facade.limits.windows import SLICES
from facade.store.tables import users
from tests.fakes.clock import SetClock
from tests.fakes.daemon import FakeDaemon
from tests.integration.facade.conftest import PASSWORD, UNLIMITED, Answer, Api, Serving

pytestmark = pytest.mark.integration
DATABASES = ("sqlite",)

ADA = "ada@example.org"
WRONG = "wrong horse"
# Small numbers, each of its own, so that it shows which one applies.
LIMITS = Limits(
    attempts_per_address=20,
    attempts_per_network=40,
    attempts_per_device=12,
    failures_per_visitor=3,
    failures_per_account=8,
    failures_per_device=4,
    signups_per_network=5,
    tokens_per_user=4,
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, limits=LIMITS)


class Browser:
    """Somebody at an address, whose cookies are kept."""

    def __init__(self, api: Api, address: str) -> None:
        self.api = api
        self.address = address
        self.cookies: dict[str, str] = {}

    async def ask(self, path: str, email: str, password: str) -> Answer:
        headers = {"X-Forwarded-For": self.address}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self.api.post(
            f"/api/v1/auth/{path}", headers=headers, json={"email": email, "password": password}
        )
        for line in answer.headers.getall("Set-Cookie", ()):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    async def signup(self, email: str = ADA) -> Answer:
        return await self.ask("signup", email, PASSWORD)

    async def login(self, password: str = WRONG, email: str = ADA) -> Answer:
        return await self.ask("login", email, password)

    async def until_refused(self, password: str = WRONG, email: str = ADA) -> int:
        """How many attempts were let through."""
        count = 0
        while (await self.login(password, email)).status != 429:
            count += 1
        return count


@pytest.fixture
async def ada(api: Api) -> Browser:
    """Has an account, and the browser that she made it with."""
    browser = Browser(api, "192.0.2.1")
    assert (await browser.signup()).status == 201
    return browser


def refused(answer: Answer) -> int:
    """Seconds to wait."""
    assert answer.status == 429
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json == {
        "type": "https://medforge.dev/problems/rate-limit/exceeded",
        "title": "Rate Limit Exceeded",
        "status": 429,
        "detail": "Too many attempts; try again later.",
        "instance": answer.json["instance"],
        "code": "rate_limit_exceeded",
        "request_id": answer.headers["X-Request-ID"],
    }
    assert "Set-Cookie" not in answer.headers
    assert re.fullmatch("[1-9][0-9]*", answer.headers["Retry-After"])
    return int(answer.headers["Retry-After"])


async def test_wrong_passwords_are_limited_and_the_right_one_too_until_the_time_that_is_told(
    api: Api, ada: Browser, clock: SetClock
) -> None:
    stranger = Browser(api, "198.51.100.1")
    for _ in range(3):
        assert (await stranger.login()).status == 401
        clock.advance(seconds=100)
    seconds = refused(await stranger.login(PASSWORD))
    assert 600 <= seconds <= 600 + 900 / SLICES
    clock.advance(seconds=seconds - 1)
    refused(await stranger.login(PASSWORD))
    clock.advance(seconds=1)
    assert (await stranger.login(PASSWORD)).status == 200


async def test_the_right_password_is_not_counted(api: Api, ada: Browser) -> None:
    stranger = Browser(api, "198.51.100.1")
    for _ in range(15):
        stranger.cookies.clear()
        assert (await stranger.login(PASSWORD)).status == 200
    stranger.cookies.clear()
    assert await stranger.until_refused() == 3


async def test_a_stranger_from_one_address_locks_nobody_out_from_another(api: Api, ada: Browser) -> None:
    await Browser(api, "198.51.100.1").until_refused()
    elsewhere = Browser(api, "203.0.113.1")
    assert (await elsewhere.login(PASSWORD)).status == 200


async def test_strangers_from_everywhere_do_not_lock_out_a_browser_that_is_known(
    api: Api, ada: Browser, clock: SetClock
) -> None:
    let_through = [await Browser(api, f"198.51.100.{number}").until_refused() for number in range(1, 11)]
    assert sum(let_through) == 8
    refused(await Browser(api, "203.0.113.1").login(PASSWORD))
    assert (await ada.login(PASSWORD)).status == 200
    # Neither does somebody at her own address who uses it up.
    neighbour = Browser(api, ada.address)
    for number in range(20):
        await neighbour.login(email=f"nobody{number}@example.org")
    refused(await neighbour.signup("new@example.org"))
    assert (await ada.login(PASSWORD)).status == 200


async def test_a_known_browser_has_a_limit_of_its_own(api: Api, ada: Browser, clock: SetClock) -> None:
    assert await ada.until_refused() == 4
    assert (await Browser(api, "203.0.113.1").login(PASSWORD)).status == 200
    seconds = refused(await ada.login(PASSWORD))
    clock.advance(seconds=seconds)
    assert (await ada.login(PASSWORD)).status == 200
    for _ in range(11):
        assert (await ada.login(PASSWORD)).status == 200
    refused(await ada.login(PASSWORD))


async def test_many_accounts_of_one_network_do_not_hash_without_end(api: Api) -> None:
    """Each is a known browser of its own."""
    browsers = [Browser(api, "192.0.2.1") for _ in range(5)]
    for number, browser in enumerate(browsers):
        assert (await browser.signup(f"p{number}@example.org")).status == 201
    let_through = [
        await browser.until_refused(PASSWORD, f"p{number}@example.org") for number, browser in enumerate(browsers)
    ]
    assert let_through == [12, 12, 12, 4, 0]
    elsewhere = Browser(api, "198.51.100.1")
    elsewhere.cookies = browsers[3].cookies
    assert (await elsewhere.login(PASSWORD, "p3@example.org")).status == 200


async def test_a_device_cookie_of_another_account_is_worth_nothing(api: Api, ada: Browser) -> None:
    mallory = Browser(api, "198.51.100.1")
    await mallory.signup("mallory@example.org")
    assert await mallory.until_refused() == 3


async def test_a_device_of_an_earlier_password_is_a_stranger(api: Api, ada: Browser) -> None:
    await Browser(api, ada.address).until_refused()
    assert (await ada.login()).status == 401
    async with api.facade.store.writing() as connection:
        await connection.execute(update(users).values(password_revision=users.c.password_revision + 1))
    refused(await ada.login())
    # The new password makes it known again.
    ada.address = "203.0.113.1"
    assert (await ada.login(PASSWORD)).status == 200
    await Browser(api, ada.address).until_refused()
    assert (await ada.login()).status == 401


async def test_the_spelling_of_an_account_makes_no_difference(api: Api, ada: Browser) -> None:
    spellings = [ADA, ADA.upper(), f" {ADA} ", "Ada@Example.org", "\u2003ada@EXAMPLE.org\n"]
    stranger = Browser(api, "198.51.100.1")
    statuses = [(await stranger.login(email=spelling)).status for spelling in spellings]
    assert statuses == [401, 401, 401, 429, 429]


async def test_known_and_unknown_accounts_are_told_apart_by_nothing(api: Api, ada: Browser) -> None:
    async def story(email: str, number: int) -> list[tuple[int, Any, Any]]:
        browsers = [Browser(api, f"198.51.100.{number + each}") for each in range(4)]
        answers = [await browser.login(email=email) for browser in browsers for _ in range(4)]
        told = [msgspec.json.decode(answer.body) for answer in answers]
        for one in told:
            del one["request_id"]
        return [
            (answer.status, one, answer.headers.get("Retry-After")) for answer, one in zip(answers, told, strict=True)
        ]

    known = await story(ADA, 10)
    assert [status for status, _, _ in known] == [401, 401, 401, 429] * 2 + [401, 401] + [429] * 6
    assert await story("nobody@example.org", 20) == known
    assert await story("not an address", 30) == known


async def test_many_guesses_at_once_are_no_more_than_one_after_the_other(api: Api, ada: Browser) -> None:
    strangers = [Browser(api, f"198.51.100.{number % 4 + 1}") for number in range(60)]
    answers = await asyncio.gather(*(stranger.login() for stranger in strangers))
    assert sorted(answer.status for answer in answers) == [401] * 8 + [429] * 52


async def test_one_address_is_limited_over_all_accounts(api: Api, clock: SetClock) -> None:
    spray = Browser(api, "198.51.100.1")
    answers = [await spray.login(email=f"person{number}@example.org") for number in range(21)]
    assert [answer.status for answer in answers] == [401] * 20 + [429]
    seconds = refused(answers[-1])
    assert 300 <= seconds <= 300 + 300 / SLICES
    refused(await spray.signup("new@example.org"))
    assert (await Browser(api, "198.51.100.2").login(email="nobody@example.org")).status == 401
    clock.advance(seconds=seconds)
    assert (await spray.login(email="person1@example.org")).status == 401


async def test_ipv6_is_limited_by_64_and_48(api: Api) -> None:
    one = [await Browser(api, f"2001:db8:1:1::{number}").login(email=f"p{number}@example.org") for number in range(21)]
    assert [answer.status for answer in one] == [401] * 20 + [429]
    site = [
        await Browser(api, f"2001:db8:1:{number:x}::1").login(email=f"q{number}@example.org") for number in range(2, 23)
    ]
    assert [answer.status for answer in site] == [401] * 20 + [429]
    assert (await Browser(api, "2001:db8:2::1").login(email="r@example.org")).status == 401


async def test_new_accounts_are_limited_taken_addresses_included(api: Api, clock: SetClock) -> None:
    somebody = Browser(api, "198.51.100.1")
    emails = ["a@example.org", "a@example.org", "b@example.org", "c@example.org", "b@example.org"]
    assert [(await somebody.signup(email)).status for email in emails] == [201, 409, 201, 201, 409]
    seconds = refused(await somebody.signup("d@example.org"))
    refused(await somebody.signup("a@example.org"))
    assert (await somebody.login(PASSWORD, "a@example.org")).status == 200
    clock.advance(seconds=seconds)
    assert (await somebody.signup("d@example.org")).status == 201


async def change(browser: Browser, current: str, **wanted: str) -> Answer:
    return await browser.api.request(
        "PATCH",
        "/api/v1/me",
        token=browser.cookies["medforge_session"],
        headers={"X-Forwarded-For": browser.address},
        json={"current_password": current, **wanted},
    )


async def test_wrong_current_passwords_are_limited_for_who_is_signed_in_alone(
    api: Api, ada: Browser, clock: SetClock
) -> None:
    for number in range(1, 11):
        await Browser(api, f"198.51.100.{number}").until_refused()
    wanted = {"password": "another horse"}
    answers = [await change(ada, WRONG, **wanted) for _ in range(5)]
    assert [answer.status for answer in answers] == [403] * 4 + [429]
    assert (await ada.login(PASSWORD)).status == 200
    seconds = refused(await change(ada, PASSWORD, **wanted))
    clock.advance(seconds=seconds)
    changed = await change(ada, PASSWORD, **wanted)
    assert changed.status == 200
    # The browser that has changed it is known with the new password, also while strangers go on.
    device = changed.headers.getall("Set-Cookie")[1].partition(";")[0]
    ada.cookies = dict([device.split("=", 1)])
    for number in range(1, 11):
        await Browser(api, f"198.51.100.{number}").until_refused()
    assert (await ada.login("another horse")).status == 200


async def test_asking_by_changes_which_addresses_have_accounts_is_limited_like_signing_up(
    api: Api, ada: Browser
) -> None:
    await Browser(api, "198.51.100.1").signup("bob@example.org")
    statuses = [(await change(ada, PASSWORD, email="bob@example.org")).status for _ in range(5)]
    assert statuses == [409] * 4 + [429]


async def test_new_api_tokens_are_limited(api: Api, ada: Browser, clock: SetClock) -> None:
    made = {"name": "script", "scopes": ["account:read"]}

    async def make() -> Answer:
        return await api.post("/api/v1/me/tokens", token=ada.cookies["medforge_session"], json=made)

    answers = [await make() for _ in range(LIMITS.tokens_per_user + 1)]
    assert [answer.status for answer in answers] == [201] * LIMITS.tokens_per_user + [429]
    clock.advance(seconds=refused(answers[-1]))
    assert (await make()).status == 201


async def test_what_is_not_even_tried_is_not_counted(api: Api) -> None:
    for _ in range(30):
        assert (await api.post("/api/v1/auth/login", json={"email": ADA})).status == 422
        assert (await api.post("/api/v1/auth/signup", json={"email": ADA, "password": "x"})).status == 422
        assert (await api.post("/api/v1/auth/login", headers={"Origin": "https://evil.test"}, json={})).status == 403
    assert (await api.post("/api/v1/auth/signup", json={"email": ADA, "password": PASSWORD})).status == 201


@pytest.mark.parametrize("name", ["Forwarded", "X-Real-IP", "X-Client-IP", "X_Forwarded_For", "True-Client-IP"])
async def test_no_other_header_makes_another_address(api: Api, name: str) -> None:
    for number in range(21):
        answer = await api.post(
            "/api/v1/auth/login",
            headers=[("X-Forwarded-For", "198.51.100.1"), (name, f"192.0.2.{number}")],
            json={"email": f"p{number}@example.org", "password": WRONG},
        )
        assert answer.status == (429 if number == 20 else 401)


async def test_what_a_client_puts_in_front_makes_no_other_address(api: Api) -> None:
    for number in range(21):
        spoofed = f"192.0.2.{number}"
        lines = [("X-Forwarded-For", spoofed), ("X-Forwarded-For", f"{spoofed}, 198.51.100.1")]
        answer = await api.post(
            "/api/v1/auth/login", headers=lines, json={"email": f"p{number}@example.org", "password": WRONG}
        )
        assert answer.status == (429 if number == 20 else 401)


async def test_setting_the_clock_frees_and_locks_nobody(api: Api, ada: Browser, clock: SetClock) -> None:
    stranger = Browser(api, "198.51.100.1")
    await stranger.until_refused()
    for year in (2036, 1996):
        clock.set(clock.now().replace(year=year))
        assert refused(await stranger.login()) <= 945


@pytest.fixture
async def both(daemon: FakeDaemon, settings: Settings, serving: Serving) -> AsyncIterator[tuple[Api, Api]]:
    """Two facades of one database and one table of counters, as two workers are."""
    table = SharedTable.create(len(Rule))
    async with (
        serving(settings, table) as one,
        serving(settings, SharedTable.attach(os.dup(table.fd), len(Rule))) as two,
    ):
        yield one, two


async def test_workers_count_together_and_know_each_others_devices(both: tuple[Api, Api]) -> None:
    one, two = both
    ada = Browser(one, "192.0.2.1")
    await ada.signup()
    strangers = [Browser(api, "198.51.100.1") for api in (one, two)]
    assert [(await strangers[turn % 2].login()).status for turn in range(4)] == [401, 401, 401, 429]
    assert await Browser(one, "198.51.100.2").until_refused() + await Browser(two, "198.51.100.3").until_refused() == 5
    ada.api = two
    assert (await ada.login(PASSWORD)).status == 200


async def test_devices_are_known_after_a_restart(daemon: FakeDaemon, settings: Settings, serving: Serving) -> None:
    async with serving(settings) as api:
        ada = Browser(api, "192.0.2.1")
        await ada.signup()
    async with serving(settings) as api:
        for number in range(1, 9):
            await Browser(api, f"198.51.100.{number}").until_refused()
        refused(await Browser(api, ada.address).login(PASSWORD))
        ada.api = api
        assert (await ada.login(PASSWORD)).status == 200


def test_tests_that_are_not_about_limits_are_not_limited() -> None:
    defaults = Limits()
    raised = [field for field in msgspec.structs.fields(Limits) if "_per_" in field.name]
    assert all(getattr(UNLIMITED, field.name) > getattr(defaults, field.name) for field in raised)
