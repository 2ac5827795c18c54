"""Where the login page leads, asked of a real browser: thousands of addresses, and what it itself makes of each."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from playwright.async_api import Page

from facade.hosts import Hosts
from tests.browser.visitor import Platform
from tests.fixtures.addresses import HOST, addresses

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.host.caddy_fixtures"]

SCRIPT = """async (given) => {
  const { safeNext } = await import('/assets/links.js');
  const whole = (text) => { try { return new URL(text, location.origin).href; } catch { return null; } };
  return given.map((text) => [safeNext(text), whole(text)]);
}"""


def many(count: int) -> list[str]:
    """Addresses of hypothesis' making."""
    found: list[str] = []

    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(addresses())
    def keep(url: str) -> None:
        found.append(url)

    keep()
    return found


async def test_neither_page_nor_facade_leads_anywhere_else(page: Page, platform: Platform) -> None:
    """The page follows `safeNext`; before it, the facade lets through what `may_follow` allows and nothing more."""
    port = platform.site.port
    ours = re.compile(rf"https://(s-[a-z2-7]{{8}}\.)?medforge\.localhost:{port}/.*", re.DOTALL)
    hosts = Hosts("localhost", port)
    await page.goto(platform.url + "login")
    good = [
        f"https://{host}medforge.localhost:{port}{tail}" for host in ("", "s-abcd2345.") for tail in ("/", "/x?y=z#w")
    ]
    given_ = good + [url.replace(HOST, "medforge.localhost").replace(":8443", f":{port}") for url in many(2000)]

    led = await page.evaluate(SCRIPT, given_)

    assert len(led) > 1000
    followed = allowed = 0
    for url, (safe, whole) in zip(given_, led, strict=True):
        assert ours.fullmatch(safe), url
        followed += safe != f"https://medforge.localhost:{port}/"
        if hosts.may_follow(url):
            allowed += 1
            assert whole is not None, url
            assert ours.fullmatch(whole), f"the facade allows {url!r}, which is {whole!r}"
    # How many of the others are good is chance.
    assert allowed >= len(good)
    assert followed >= len(good) - 1, "one is where the page leads anyway"
