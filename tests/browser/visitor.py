"""What tests do at the site as its visitor, and the site as such a test sees it."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import msgspec
from playwright.async_api import Page

from medforged.contract.sessions import Session
from tests.fakes.daemon import FakeDaemon
from tests.host.caddy_site import CaddySite

PASSWORD = "correct horse battery"


class ReachableDaemon(FakeDaemon):
    """Gives new sessions the slugs whose names lead to the scripted IDE."""

    slugs: tuple[str, ...] = ()

    async def put(self, session: Session) -> Session:
        if session.id not in self.sessions and len(self.sessions) < len(self.slugs):
            session = msgspec.structs.replace(session, slug=self.slugs[len(self.sessions)])
        return await super().put(session)


@dataclass(frozen=True)
class Platform:
    """The site as a visitor meets it. `url` ends with a slash."""

    url: str
    daemon: ReachableDaemon
    site: CaddySite
    database: Path

    def ide(self, slug: str) -> str:
        return f"https://{self.site.host_of(slug)}/"

    def allow(self, email: str, sessions: int) -> None:
        """How many sessions the account may have at once."""
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            connection.execute("UPDATE users SET max_concurrent_sessions = ? WHERE email = ?", (sessions, email))


async def sign_up(page: Page, platform: Platform, email: str = "ada@example.org") -> None:
    """Leaves the page at the dashboard of a new account."""
    await page.goto(platform.url + "login#signup")
    await page.get_by_label("E-mail address").fill(email)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Create account").click()
    await page.wait_for_url(platform.url)
    await page.get_by_role("button", name="Start session").wait_for()


async def own_id(page: Page) -> UUID:
    """The id of whoever is signed in."""
    me = await page.evaluate("fetch('/api/v1/me').then((answer) => answer.json())")
    return UUID(me["data"]["user_id"])
