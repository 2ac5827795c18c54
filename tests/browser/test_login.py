"""The login page in a real browser: signing in and up, and leading back to where the visitor came from."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.visitor import PASSWORD, Platform, sign_up

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.host.caddy_fixtures"]


async def fill(page: Page, email: str, password: str) -> None:
    await page.get_by_label("E-mail address").fill(email)
    await page.get_by_label("Password", exact=True).fill(password)


async def test_a_new_account_can_sign_in_again(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url(platform.url + "login")

    await fill(page, "ada@example.org", PASSWORD)
    await page.keyboard.press("Enter")

    await page.wait_for_url(platform.url)
    await expect(page.get_by_text("ada@example.org")).to_be_visible()


async def test_the_form_is_ready_to_type_in_and_works_with_the_keyboard_alone(page: Page, platform: Platform) -> None:
    await page.goto(platform.url + "login")
    await expect(page.get_by_label("E-mail address")).to_be_focused()
    await page.get_by_role("button", name="Create an account").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Create an account")).to_be_visible()
    await expect(page.get_by_label("E-mail address")).to_be_focused()

    await page.keyboard.type("grace@example.org")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")

    await page.wait_for_url(platform.url)


async def test_a_visitor_of_a_session_signs_in_and_is_taken_back(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    await page.get_by_role("button", name="Start session").click()
    await page.wait_for_url(platform.ide(platform.site.slug))
    await page.context.clear_cookies()
    wanted = platform.ide(platform.site.slug) + "?folder=/workspace/a%20b&x=1"

    await page.goto(wanted)
    await page.wait_for_url(f"{platform.url}login?next=**")
    await expect(page.get_by_text("You will be taken to your session.")).to_be_visible()
    await fill(page, "ada@example.org", PASSWORD)
    await page.get_by_role("button", name="Sign in").click()

    await page.wait_for_url(wanted)
    await expect(page.get_by_role("heading", name="The IDE")).to_be_visible()


async def test_who_is_signed_in_already_goes_straight_on(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)

    await page.goto(platform.url + "login")

    await page.wait_for_url(platform.url)


async def test_a_page_that_sends_its_visitor_back_does_not_make_a_loop(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    await page.goto(platform.url + "login?next=/")
    await page.wait_for_url(platform.url)

    await page.goto(platform.url + "login?next=/")

    await expect(page.get_by_role("alert")).to_contain_text("You are signed in as ada@example.org")


@pytest.mark.parametrize(
    ("email", "password", "words"),
    [
        ("", PASSWORD, "Please enter your e-mail address."),
        ("ada", PASSWORD, "Please enter your e-mail address."),
        ("ada@example.org", "", "Please enter your password."),
        ("ada@example.org", "short", "Please use at least 8 characters."),
        ("ada@example.org", "x" * 200, "8 to 128 characters"),
        ("ada@@example.org", PASSWORD, "not allowed"),
    ],
)
async def test_what_is_wrong_is_said_at_its_field(
    page: Page, platform: Platform, email: str, password: str, words: str
) -> None:
    await page.goto(platform.url + "login#signup")
    await fill(page, email, password)
    await page.get_by_role("button", name="Create account").click()

    wrong = page.locator("[aria-invalid=true]")
    await expect(wrong).to_be_focused()
    described = (await wrong.get_attribute("aria-describedby") or "").split()
    told = " ".join([await page.locator(f"#{name}").inner_text() for name in described])
    assert words in told


async def test_a_wrong_password_and_an_unknown_address_read_alike(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    await page.context.clear_cookies()

    for email in ("ada@example.org", "nobody@example.org"):
        await page.goto(platform.url + "login")
        await fill(page, email, "wrong password")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_have_text("The e-mail address or the password is not right.")


async def test_an_address_that_is_taken_leads_to_signing_in(page: Page, platform: Platform) -> None:
    await sign_up(page, platform)
    await page.context.clear_cookies()

    await page.goto(platform.url + "login#signup")
    await fill(page, "ada@example.org", PASSWORD)
    await page.get_by_role("button", name="Create account").click()

    await expect(page.locator("#email-fault")).to_contain_text("already")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(platform.url)


async def test_the_password_can_be_looked_at(page: Page, platform: Platform) -> None:
    await page.goto(platform.url + "login")
    field = page.get_by_label("Password", exact=True)
    await field.fill(PASSWORD)

    await page.get_by_role("button", name="Show").click()
    await expect(field).to_have_attribute("type", "text")
    await page.get_by_role("button", name="Hide").click()
    await expect(field).to_have_attribute("type", "password")


OWN = "https://HOST/"
NEXT = [
    ("", OWN),
    ("/", OWN),
    ("/?a=b#c", OWN + "?a=b#c"),
    ("/docs", OWN + "docs"),
    ("/login", OWN),
    ("/login?next=/login", OWN),
    ("relative", OWN + "relative"),
    ("https://HOST/x", OWN + "x"),
    ("https://s-abcdefg2.HOST/?folder=/a", "https://s-abcdefg2.HOST/?folder=/a"),
    ("https://S-ABCDEFG2.HOST/", "https://s-abcdefg2.HOST/"),
    ("//example.org/", OWN),
    ("/\\example.org/", OWN),
    ("\\\\example.org/", OWN),
    ("/\t/example.org/", OWN),
    ("https:example.org", OWN + "example.org"),
    ("https:/example.org", OWN + "example.org"),
    ("https://example.org/", OWN),
    ("http://HOST/", OWN),
    ("https://HOST@example.org/", OWN),
    ("https://user@HOST/", OWN),
    ("https://s-abcdefg2.HOST.example.org/", OWN),
    ("https://HOST.example.org/", OWN),
    ("https://s-abcdefg.HOST/", OWN),
    ("https://s-abcdefg1.HOST/", OWN),
    ("https://x.s-abcdefg2.HOST/", OWN),
    ("https://evil.HOST/", OWN),
    ("javascript:alert(1)", OWN),
    ("JaVaScRiPt:alert(1)", OWN),
    (" javascript:alert(1)", OWN),
    ("java\nscript:alert(1)", OWN),
    ("data:text/html,x", OWN),
    ("blob:https://HOST/x", OWN),
    ("http://[", OWN),
]


async def test_the_page_leads_nowhere_but_to_the_platform_and_its_sessions(page: Page, platform: Platform) -> None:
    await page.goto(platform.url + "login")
    host = platform.site.platform
    script = "async (next) => (await import('/assets/links.js')).safeNext(next)"

    for given, expected in NEXT:
        assert await page.evaluate(script, given.replace("HOST", host)) == expected.replace("HOST", host), given


async def test_a_foreign_next_is_dropped_before_the_page_is_served(page: Page, platform: Platform) -> None:
    await page.goto(platform.url + "login?next=https://example.org/")

    assert page.url == platform.url + "login"


async def test_a_password_does_not_end_up_in_an_address_when_scripts_do_not_run(page: Page, platform: Platform) -> None:
    await page.route("**/*.js", lambda route: route.fulfill(content_type="text/javascript", body=""))
    await page.goto(platform.url + "login")
    await fill(page, "ada@example.org", PASSWORD)

    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_load_state()

    assert "correct" not in page.url
