"""The page of the API's documentation in a real browser: readable, and nothing is loaded or refused beside it."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.visitor import Platform

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.host.caddy_fixtures"]


async def test_it_can_be_read_and_nothing_else_is_loaded(page: Page, platform: Platform) -> None:
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: asked.append(request.url))

    await page.goto(platform.url + "docs")

    await expect(page.get_by_role("heading", name="MedForge API")).to_be_visible()
    # Its style is applied although its policy allows no other: what there is stays in sight beside what is read.
    await expect(page.get_by_role("navigation")).to_have_css("position", "sticky")
    await page.get_by_role("navigation").get_by_role("link", name="POST /api/v1/sessions", exact=True).click()
    await expect(page.get_by_role("heading", name="POST /api/v1/sessions", exact=True)).to_be_in_viewport()
    section = page.locator("#post_sessions")
    told = section.locator("details").filter(has_text="Concurrent session limit reached").first
    await told.locator("summary").first.click()
    await expect(told.get_by_text("Concurrent session limit reached").first).to_be_visible()
    assert asked == [platform.url + "docs"]
    assert complaints == []
