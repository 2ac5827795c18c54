"""The dashboard in a real browser: from nothing to the IDE and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import BrowserContext, Page, expect

from medforged.contract.errors import ErrorCode
from medforged.contract.sessions import SessionStatus
from tests.browser.visitor import PASSWORD, Platform, own_id, sign_up
from tests.fakes.daemon import make_session

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.host.caddy_fixtures"]


async def test_two_clicks_lead_from_signing_in_to_the_ide(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)

    await page.get_by_role("button", name="Start session").click()

    await page.wait_for_url(platform.ide(platform.site.slug))
    await expect(page.get_by_role("heading", name="The IDE")).to_be_visible()
    [arrived] = [seen for seen in platform.site.session.seen if seen.target == "/"]
    assert "medforge_session" not in str(arrived.headers)


async def test_starting_shows_progress_until_the_ide_is_ready(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    ready = platform.daemon.hold("sessions.create")

    await page.get_by_role("button", name="Start session").click()

    await expect(page.get_by_role("heading", name="Starting your session…")).to_be_focused()
    await expect(page.get_by_role("progressbar")).to_be_visible()
    await expect(page.get_by_role("button", name="Start session")).to_be_hidden()
    ready.set()
    await page.wait_for_url(platform.ide(platform.site.slug))


async def test_coming_back_from_the_ide_shows_the_running_session(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    await page.get_by_role("button", name="Start session").click()
    await page.wait_for_url(platform.ide(platform.site.slug))

    await page.go_back()

    await expect(page.get_by_text("Running", exact=True)).to_be_visible()
    await expect(page.get_by_role("progressbar")).to_be_hidden()
    await expect(page.get_by_role("button", name="Start session")).to_be_hidden()
    await page.get_by_role("link", name="Open IDE").click()
    await page.wait_for_url(platform.ide(platform.site.slug))


async def test_a_session_is_stopped_after_a_question(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    await page.get_by_role("button", name="Start session").click()
    await page.wait_for_url(platform.ide(platform.site.slug))
    await page.goto(platform.url)
    [session] = platform.daemon.sessions.values()

    await page.get_by_role("button", name=f"Stop session {session.slug}").click()
    await page.get_by_role("button", name="Keep it running").click()
    assert platform.daemon.called("sessions.stop") == []

    await page.get_by_role("button", name=f"Stop session {session.slug}").click()
    await page.get_by_role("dialog").get_by_role("button", name="Stop session").click()
    await expect(page.get_by_text("Stopping", exact=True)).to_be_visible()
    await platform.daemon.end(session.id)

    row = page.get_by_role("row").filter(has_text=session.slug)
    await expect(row.get_by_text("Stopped")).to_be_visible()
    await expect(page.get_by_role("button", name="Start session")).to_be_visible()


async def test_a_session_that_ends_by_itself_leaves_the_screen(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    await page.get_by_role("button", name="Start session").click()
    await page.wait_for_url(platform.ide(platform.site.slug))
    await page.goto(platform.url)
    await expect(page.get_by_role("link", name="Open IDE")).to_be_visible()
    [session] = platform.daemon.sessions.values()

    await platform.daemon.end(session.id, SessionStatus.ERROR)
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    await expect(page.get_by_role("row").filter(has_text="Ended by an error")).to_be_visible()
    await expect(page.get_by_role("link", name="Open IDE")).to_be_hidden()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (ErrorCode.NO_GPU_AVAILABLE, "All GPUs are in use right now"),
        (ErrorCode.SESSION_LIMIT_REACHED, "as many sessions as you may have"),
        (ErrorCode.CREATE_FAILED, "could not be started, and nothing of it is left running"),
        (ErrorCode.SHUTTING_DOWN, "restarting"),
        (ErrorCode.UNREACHABLE, "does not answer"),
    ],
)
async def test_a_session_that_cannot_start_is_explained_in_plain_words(
    page: Page, platform: Platform, code: ErrorCode, words: str
) -> None:
    await sign_up(page, platform)
    platform.daemon.refuse("sessions.create", code)

    await page.get_by_role("button", name="Start session").click()

    await expect(page.get_by_role("alert")).to_contain_text(words)
    await expect(page.get_by_role("button", name="Start session")).to_be_focused()
    platform.daemon.allow("sessions.create")
    await page.get_by_role("button", name="Start session").click()
    await page.wait_for_url(platform.ide(platform.site.slug))


async def test_the_facade_being_away_is_said_and_forgotten_when_it_is_back(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    await platform.daemon.go_away()
    await page.get_by_role("button", name="Start session").click()
    await expect(page.get_by_role("alert")).to_contain_text("try again")

    await platform.daemon.come_back()
    await page.get_by_role("button", name="Start session").click()

    await page.wait_for_url(platform.ide(platform.site.slug))


async def test_several_sessions_where_the_account_may_have_them(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    platform.allow("ada@example.org", 2)
    await page.context.clear_cookies()
    await page.goto(platform.url + "login")
    await page.get_by_label("E-mail address").fill("ada@example.org")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(platform.url)

    for slug in platform.site.slugs:
        await page.goto(platform.url)
        await page.get_by_role("button", name="Start session").click()
        await page.wait_for_url(platform.ide(slug))
    await page.goto(platform.url)

    await expect(page.get_by_role("link", name="Open IDE")).to_have_count(2)
    await expect(page.get_by_role("button", name="Start session")).to_be_hidden()


async def test_past_sessions_are_listed_newest_first_and_in_pages(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    user_id = await own_id(page)
    began = datetime.now(UTC) - timedelta(days=3)
    for number in range(25):
        moment = began + timedelta(hours=number)
        broken = number == 24
        await platform.daemon.put(
            make_session(
                user_id=user_id,
                slug=f"past{number:04}".translate(str.maketrans("0189", "abcd")),
                status=SessionStatus.ERROR if broken else SessionStatus.STOPPED,
                created_at=moment,
                started_at=moment,
                stopped_at=moment + timedelta(minutes=65),
                error_message="container exited unexpectedly" if broken else None,
            )
        )
    await page.reload()

    rows = page.locator("#past tr")
    await expect(rows).to_have_count(20)
    await expect(rows.first).to_contain_text("container exited unexpectedly")
    await expect(rows.nth(1)).to_contain_text("1 h 5 min")
    await page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(25)
    await expect(page.get_by_role("button", name="Show more")).to_be_hidden()


async def test_nothing_that_a_session_says_becomes_markup(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    user_id = await own_id(page)
    text = "<img src=x onerror=alert(1)><b>bold</b>"
    await platform.daemon.put(
        make_session(user_id=user_id, status=SessionStatus.ERROR, stopped_at=datetime.now(UTC), error_message=text)
    )
    await page.reload()

    await expect(page.get_by_text(text)).to_be_visible()
    assert await page.locator("#past img, #past b").count() == 0


async def test_signing_out_ends_the_login_everywhere(page: Page, context: BrowserContext, platform: Platform) -> None:
    await sign_up(page, platform)
    other = await context.new_page()
    await other.goto(platform.url)

    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url(platform.url + "login")
    await other.get_by_role("button", name="Start session").click()

    await other.wait_for_url(platform.url + "login")
    await other.close()


async def test_a_visitor_who_is_not_signed_in_is_sent_to_sign_in(page: Page, platform: Platform) -> None:
    await page.goto(platform.url)

    await page.wait_for_url(platform.url + "login")
