"""Owns the site's host names: what a Host header names, which origins are ours, and where a redirect may lead."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

__all__ = ["Hosts"]

# Sessions' slugs are 8 characters of lower-case base32 (contract.md section 3).
_SLUG = r"[a-z2-7]{8}"
_PORT = r"(?::[0-9]{1,5})?"
# What an HTTP request target may consist of; longer ones are not worth coming back to.
_TARGET = re.compile(r"/[\x21-\x7e]{0,1999}")


class Hosts:
    """The names under `medforge.<domain>`, compared exactly: no suffixes, no trailing dot, no other alphabet."""

    def __init__(self, domain: str, https_port: int) -> None:
        self.site = f"medforge.{domain}"
        self.api = f"api.{self.site}"
        self._port = "" if https_port == 443 else f":{https_port}"
        self._session = re.compile(rf"s-(?P<slug>{_SLUG})\.{re.escape(self.site)}{_PORT}")
        self._endings = frozenset({f".{self.site}", f".{self.site}:{https_port}"})
        self._site = re.compile(rf"{re.escape(self.site)}{_PORT}", re.IGNORECASE)
        # Where browsers are led to, the port counts: what listens at another one is not ours.
        port = "(?::443)?" if https_port == 443 else f":{https_port}"
        self._leads = re.compile(rf"(?:s-{_SLUG}\.)?{re.escape(self.site)}{port}")

    @property
    def site_url(self) -> str:
        """The site's first page."""
        return f"https://{self.site}{self._port}/"

    @property
    def cookie_domain(self) -> str:
        """Cookies reach the site, the API and every session's host."""
        return f".{self.site}"

    @property
    def origins(self) -> frozenset[str]:
        """The origins of our own pages, as browsers write them. Sessions' hosts run the tenants' code: not ours."""
        return frozenset({f"https://{self.site}{self._port}", f"https://{self.api}{self._port}"})

    def session_slug(self, host: str) -> str | None:
        """The slug that a Host header names, None when it is not a session's host."""
        found = self._session.fullmatch(host)
        return found["slug"] if found else None

    def plain_slug(self, host: str) -> str | None:
        """What `session_slug` says of a host as Caddy names it, for callers that look it up: anything else is None.

        The slug's own alphabet is not looked at, for what has another is no session's.
        """
        return host[2:10] if host[:2] == "s-" and host[10:] in self._endings else None

    def is_site(self, host: str) -> bool:
        return self._site.fullmatch(host) is not None

    def session_url(self, slug: str, target: str) -> str:
        """The address of a session's page; that of its root where the target is none of a request."""
        # Browsers take a backslash for a slash, so `may_follow` lets none pass; encoded it means the same to a server.
        page = target.replace("\\", "%5C") if _TARGET.fullmatch(target) else "/"
        return f"https://s-{slug}.{self.site}{self._port}{page}"

    def login_url(self, slug: str, target: str) -> str:
        """The login page, which leads back to the session's page that was asked for."""
        return f"{self.site_url}login?next={quote(self.session_url(slug, target), safe='')}"

    def may_follow(self, url: str) -> bool:
        """Whether the login page may lead to this address: a path of the site itself, the site, or a session's host."""
        if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
            return False
        if url.startswith("/"):
            return not url.startswith("//")
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        return parts.scheme == "https" and self._leads.fullmatch(parts.netloc) is not None
