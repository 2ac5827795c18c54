"""A session's page and the platform's cookie in a real browser: whatever it sets, its visitor stays who they are."""

from __future__ import annotations

import json
import random

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.visitor import Platform, sign_up
from tests.host.caddy_site import Message, Wire
from tests.host.test_public_recording import SEED, evil_cookie

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.host.caddy_fixtures"]

# Browsers keep 180 for all hosts of the site together; beyond, old ones go.
COOKIES = 120


def tenant(cookies: list[str]) -> object:
    """Sets one after the other: in a final answer, in one before it, and in trailers."""
    left = iter(cookies)

    def script(request: Message, wire: Wire) -> None:
        if request.target != "/cookie":
            return wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<h1>IDE</h1>\n")
        line = f"Set-Cookie: {next(left)}\r\n".encode()
        wire.send(b"HTTP/1.1 103 Early Hints\r\n" + line + b"\r\nHTTP/1.1 200 OK\r\nCache-Control: no-store\r\n" + line)
        return wire.send(b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + line + b"\r\n")

    return script


async def platforms(context: BrowserContext) -> list[tuple[str, str, str]]:
    """Domain, name and value of every cookie that is, or looks like, the platform's."""
    found = await context.cookies()
    return [
        (cookie["domain"], cookie["name"], cookie["value"])
        for cookie in sorted(found, key=lambda cookie: cookie["domain"])
        if "medforge_" in f"{cookie['name']}={cookie['value']}".lower() or cookie["domain"].startswith(".")
    ]


async def test_no_cookie_of_a_session_sets_or_shadows_the_platforms(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    own = await platforms(page.context)
    assert [cookie[:2] for cookie in own] == [
        (".medforge.localhost", "medforge_session"),
        ("medforge.localhost", "__Host-medforge_device"),
    ]
    await page.get_by_role("button", name="Start session").click()
    await page.wait_for_url(platform.ide(platform.site.slug))
    rng = random.Random(SEED)
    cookies = [evil_cookie(rng) for _ in range(COOKIES)]
    platform.site.session.script = tenant(cookies)  # type: ignore[assignment]  # is one

    told = await page.evaluate(
        f"(async () => {{ let n = 0; for (; n < {COOKIES}; n++) await fetch('/cookie').then((a) => a.text()); return n; }})()"
    )

    assert told == COOKIES
    assert await platforms(page.context) == own, f"seed {SEED}: {json.dumps(cookies)}"
    await page.goto(platform.url)
    await expect(page.get_by_text("ada@example.org")).to_be_visible()


@pytest.mark.parametrize(
    "tossed",
    [
        "medforge_session=jjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj; domain=medforge.localhost; path=/api; secure",
        "medforge_session=; domain=medforge.localhost; path=/; secure; max-age=0",
        "medforge_session=x; domain=medforge.localhost; path=/; secure",
        "=medforge_session=jjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj; domain=medforge.localhost; path=/; secure",
    ],
)
async def test_a_script_in_a_session_does_not_change_who_its_visitor_is(
    page: Page, platform: Platform, tossed: str
) -> None:
    """No proxy sees what a script sets for the whole domain; the facade looks at every cookie and takes the good one."""
    await sign_up(page, platform)
    await page.get_by_role("button", name="Start session").click()
    await page.wait_for_url(platform.ide(platform.site.slug))

    await page.evaluate("(text) => { document.cookie = text; }", tossed)

    await page.goto(platform.ide(platform.site.slug))
    await expect(page.get_by_role("heading", name="The IDE")).to_be_visible()
    await page.goto(platform.url)
    await expect(page.get_by_text("ada@example.org")).to_be_visible()


async def test_the_cookie_of_a_known_browser_stays_with_the_site(page: Page, platform: Platform) -> None:
    """Its prefix keeps it to the one host that has set it; what is asked about a session does not bring it along."""
    await sign_up(page, platform)
    known = next(cookie for cookie in await page.context.cookies() if cookie["name"] == "__Host-medforge_device")
    assert known["domain"] == "medforge.localhost"
    await page.get_by_role("button", name="Start session").click()
    await page.wait_for_url(platform.ide(platform.site.slug))

    assert "device" not in await page.evaluate("document.cookie")
    sent = await page.evaluate("fetch('/', {credentials: 'include'}).then(() => document.cookie)")
    assert known["value"] not in sent
    assert not [seen for seen in platform.site.session.seen if known["value"] in str(seen.headers)]


async def test_a_script_in_a_session_cannot_read_the_platforms_cookie(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    await page.get_by_role("button", name="Start session").click()
    await page.wait_for_url(platform.ide(platform.site.slug))

    assert "medforge_session" not in await page.evaluate("document.cookie")
