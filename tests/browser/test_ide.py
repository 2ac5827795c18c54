"""The real IDE behind the real site: workbench, terminal over a websocket, and webviews with their service worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from playwright.async_api import BrowserContext, Locator, Page, expect
from playwright.async_api import TimeoutError as NotYet

from tests.browser.visitor import Platform, sign_up
from tests.fakes.daemon import make_session
from tests.host.caddy_site import PACK_IMAGE, docker, random_slug, run_docker

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.host.caddy_fixtures"]


@pytest.fixture
async def slug(platform: Platform) -> AsyncIterator[str]:
    """A running IDE that has the name of a session, and nothing else of one."""
    made = random_slug()
    docker(
        *("run", "--detach", "--name", f"mfcd-ide-{made}", "--network", platform.site.environment["MEDFORGE_NETWORK"]),
        *("--network-alias", f"mf-session-{made}", "--user", "1000:1000", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--tmpfs", "/workspace:uid=1000,gid=1000,exec", PACK_IMAGE),
    )
    yield made
    docker("rm", "--force", f"mfcd-ide-{made}")


async def content(slug: str, path: str) -> str:
    """The file, as soon as it has any content."""
    while not (text := run_docker("exec", f"mfcd-ide-{slug}", "cat", path).stdout):  # noqa: ASYNC110  # another process writes it
        await asyncio.sleep(0.1)
    return text


async def press_until(page: Page, keys: str, wanted: Locator) -> None:
    """The workbench is visible before it listens to the keyboard, and it does not tell."""
    for _ in range(5):
        await page.keyboard.press(keys)
        with contextlib.suppress(NotYet):
            await wanted.first.wait_for(timeout=5_000, state="attached")
            return
    raise AssertionError(f"{keys} does nothing")


async def test_one_works_in_the_ide(context: BrowserContext, platform: Platform, slug: str) -> None:
    page: Page = await context.new_page()
    await sign_up(page, platform)
    me = await page.evaluate("fetch('/api/v1/me').then((answer) => answer.json())")
    platform.daemon.slugs = ()
    await platform.daemon.put(make_session(UUID(me["data"]["user_id"]), slug=slug))
    docker("exec", f"mfcd-ide-{slug}", "sh", "-c", "echo '# A heading' > /workspace/read.md")

    await page.goto(platform.url)
    await page.get_by_role("link", name="Open IDE").click()
    await expect(page.locator(".monaco-workbench")).to_be_visible(timeout=30_000)
    await expect(page.get_by_role("treeitem", name="read.md")).to_be_visible(timeout=30_000)

    await press_until(page, "Control+Shift+Backquote", page.locator(".terminal-wrapper .xterm-helper-textarea"))
    await page.keyboard.type("echo $((6 * 7)) > made.txt\n")
    assert await content(slug, "/workspace/made.txt") == "42\n"
    await expect(page.get_by_role("treeitem", name="made.txt")).to_be_visible()

    await page.get_by_role("treeitem", name="read.md").dblclick()
    await page.get_by_role("tab", name="read.md").wait_for()
    await page.locator(".monaco-editor .view-line").get_by_text("A heading").click()
    await press_until(page, "Control+Shift+V", page.locator("iframe.webview"))
    preview = page.frame_locator("iframe.webview").frame_locator("#active-frame")
    await expect(preview.get_by_role("heading", name="A heading")).to_be_visible(timeout=30_000)
