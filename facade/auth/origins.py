"""Owns which web origins may change anything; what runs on a session's host is the tenant's code and may not."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from facade.problems import origin_refused

__all__ = ["OriginGuard"]


class OriginGuard:
    """Compares the Origin header exactly, as browsers write it: scheme, host and port."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(allowed)

    def check(self, request: web.BaseRequest) -> None:
        """Raises Problem 403 for a request that a page of another origin has sent.

        Programs send no Origin and are let through. Browsers send one with every POST; should one leave it
        out, Sec-Fetch-Site, which no page can set, still tells where the request comes from.
        """
        origins = request.headers.getall("Origin", ())
        if origins:
            allowed = len(origins) == 1 and origins[0] in self._allowed
        else:
            sites = request.headers.getall("Sec-Fetch-Site", ())
            allowed = all(site in ("same-origin", "none") for site in sites)
        if not allowed:
            raise origin_refused()
