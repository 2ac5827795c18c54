"""A session's address while there is no IDE behind it, as a person's browser shows it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from playwright.async_api import Browser, Page, Request, expect

from medforged.contract.sessions import Session, SessionStatus
from tests.browser.visitor import Platform, own_id, sign_up
from tests.fakes.daemon import make_session

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.host.caddy_fixtures"]

# Where screenshots go; nowhere by default.
SCREENSHOTS = os.environ.get("MEDFORGE_SCREENSHOTS")


@pytest.fixture
async def unscripted(browser: Browser) -> AsyncIterator[Page]:
    """A page in a browser that runs no scripts."""
    context = await browser.new_context(java_script_enabled=False)
    context.set_default_timeout(15_000)
    yield await context.new_page()
    await context.close()


async def starting(page: Page, platform: Platform) -> Session:
    """A session of the page's visitor that is starting."""
    await sign_up(page, platform)
    made = make_session(user_id=await own_id(page), status=SessionStatus.STARTING)
    return await platform.daemon.put(made)


async def shown(page: Page, name: str) -> None:
    if SCREENSHOTS:
        await page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


async def test_a_session_that_is_starting_becomes_its_ide_by_itself(page: Page, platform: Platform) -> None:
    session = await starting(page, platform)
    wanted = platform.ide(session.slug) + "?folder=/workspace#here"
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108  # a built-in function cannot be kept

    await page.goto(wanted)
    await expect(page.get_by_role("status")).to_contain_text("Your session is starting…")
    await shown(page, "starting")
    async with page.expect_response(lambda answer: answer.status == 404):
        pass  # it has asked again, and is still told that there is nothing yet
    await platform.daemon.put(msgspec.structs.replace(session, status=SessionStatus.RUNNING))

    await expect(page.get_by_role("heading", name="The IDE")).to_be_visible()
    # Without what stands after the #: only a script could keep that.
    assert page.url == wanted.removesuffix("#here")
    assert {(urlsplit(request.url).netloc, request.resource_type) for request in asked} <= {
        (platform.site.host, "document"),
        (platform.site.host, "other"),  # the IDE's own icon
    }


async def test_it_does_so_without_any_script(page: Page, unscripted: Page, platform: Platform) -> None:
    session = await starting(page, platform)
    await unscripted.context.add_cookies(await page.context.cookies())  # type: ignore[arg-type]  # as they came

    await unscripted.goto(platform.ide(session.slug))
    await expect(unscripted.get_by_role("heading", name="Your session is starting…")).to_be_visible()
    await platform.daemon.put(msgspec.structs.replace(session, status=SessionStatus.RUNNING))

    await expect(unscripted.get_by_role("heading", name="The IDE")).to_be_visible()


async def test_a_session_that_does_not_start_leads_back_to_the_dashboard(page: Page, platform: Platform) -> None:
    session = await starting(page, platform)
    await page.goto(platform.ide(session.slug))
    await expect(page.get_by_role("heading", name="Your session is starting…")).to_be_visible()

    await platform.daemon.end(session.id, SessionStatus.ERROR)

    await expect(page.get_by_role("heading", name="There is no session here")).to_be_visible()
    await shown(page, "missing")
    await page.get_by_role("link", name="Go to the dashboard").click()
    await page.wait_for_url(platform.url)


async def test_somebody_elses_session_is_said_to_be_so(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    session = await platform.daemon.put(make_session())

    answer = await page.goto(platform.ide(session.slug))

    assert answer is not None
    assert answer.status == 403
    await expect(page.get_by_role("heading", name="This session is somebody else's")).to_be_visible()
    await shown(page, "denied")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_reads_well_on_a_phone(page: Page, platform: Platform, scheme: str) -> None:
    session = await starting(page, platform)
    await page.set_viewport_size({"width": 320, "height": 640})
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of two words

    await page.goto(platform.ide(session.slug))

    await expect(page.get_by_role("heading")).to_be_in_viewport(ratio=1)
    await expect(page.get_by_role("link")).to_be_in_viewport(ratio=1)
    await shown(page, f"phone-{scheme}")
